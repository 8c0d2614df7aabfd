//! The tokenizer's metadata, from which [`Tokenizer`](crate::text::Tokenizer) creates a tokenizer.

use super::{GgufFile, GgufWriter, Value};
use crate::error::{Error, Result};

/// The tokenizer metadata of a GGUF file: the keys `tokenizer.ggml.…`.
#[derive(Clone, Default, PartialEq)]
pub struct GgmlVocabulary {
    /// Kind of tokenizer: `llama` (SentencePiece), `gpt2` (byte-level BPE), `bert` (WordPiece).
    pub model: String,
    /// Pre-tokenizer of a byte-level BPE, for example `llama-bpe`.
    pub pre: Option<String>,
    /// Token strings by id.
    pub tokens: Vec<String>,
    /// Token types by id, with ggml's numbers: 1 normal, 2 unknown, 3 control, 4 user-defined, 5
    /// unused, 6 byte. Empty if the file has none.
    pub token_types: Vec<i32>,
    /// Token scores by id. Empty if the file has none.
    pub scores: Vec<f32>,
    /// Pairs of tokens separated by a space, in the order of merging.
    pub merges: Vec<String>,
    /// Ids by role: the key without `tokenizer.ggml.` and `_token_id`, for example `bos`.
    pub roles: Vec<(String, u32)>,
    /// Whether to add the token `bos` at the start of a text.
    pub add_bos: Option<bool>,
    /// Whether to add the token `eos` at the end of a text.
    pub add_eos: Option<bool>,
    /// Whether to add a space before a text.
    pub add_space_prefix: Option<bool>,
    /// The chat template.
    pub chat_template: Option<String>,
}

impl std::fmt::Debug for GgmlVocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GgmlVocabulary({:?}, {} tokens, {} merges)", self.model, self.tokens.len(), self.merges.len())
    }
}

/// Token types, with ggml's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[cfg_attr(not(feature = "tokenizers"), expect(dead_code, reason = "only tokenizers use token types"))]
pub(crate) enum TokenType {
    /// Ordinary token.
    Normal = 1,
    /// Replaces text that is not in the vocabulary.
    Unknown = 2,
    /// Control token, not a part of the text.
    Control = 3,
    /// Added token, matched before a text is split.
    UserDefined = 4,
    /// Not used.
    Unused = 5,
    /// A byte.
    Byte = 6,
}

/// The roles in GGUF's spelling.
const ROLES: [&str; 9] = ["bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls", "mask"];

impl GgmlVocabulary {
    /// Reads the tokenizer metadata of a file; `None` if it has no tokens.
    ///
    /// # Errors
    /// [`Error::Format`] for a key with a value of the wrong type or length.
    pub fn read(file: &GgufFile) -> Result<Option<Self>> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let Some(tokens) = file.optional(&key("tokens"), "a list of strings", |v| {
            Some(v.as_array()?.strings()?.map(String::from).collect::<Vec<_>>())
        })?
        else {
            return Ok(None);
        };
        let string = |name: &str| file.optional(name, "a string", |v| v.as_str().map(String::from));
        let flag = |name: &str| file.optional(&key(name), "a boolean", |v| v.as_bool());
        let model = file.require(&key("model"), "a string", |v| v.as_str().map(String::from))?;
        let token_types = file.optional(&key("token_type"), "a list of whole numbers", |v| {
            v.as_array()?.values().map(|v| v.as_i64()?.try_into().ok()).collect::<Option<Vec<i32>>>()
        })?;
        let scores = file.optional(&key("scores"), "a list of numbers", |v| {
            let score = |v: Value<'_>| match v {
                Value::F32(x) => Some(x),
                other => other.as_f64().map(|x| x as f32),
            };
            v.as_array()?.values().map(score).collect::<Option<Vec<f32>>>()
        })?;
        let merges = file.optional(&key("merges"), "a list of strings", |v| {
            Some(v.as_array()?.strings()?.map(String::from).collect::<Vec<_>>())
        })?;
        let (token_types, scores) = (token_types.unwrap_or_default(), scores.unwrap_or_default());
        for (name, len) in [("token_type", token_types.len()), ("scores", scores.len())] {
            if len != 0 && len != tokens.len() {
                let reason = format!("`{}`: expected one for each of {} tokens, found {len}", key(name), tokens.len());
                return Err(Error::format(file.path(), reason));
            }
        }
        let mut roles = Vec::new();
        for role in ROLES {
            let name = key(&format!("{role}_token_id"));
            let id = file.optional(&name, "the id of a token", |v| v.as_u64()?.try_into().ok())?;
            // Some writers use -1 (all ones) for none.
            if let Some(id) = id.filter(|&id: &u32| id != u32::MAX) {
                if id as usize >= tokens.len() {
                    let reason = format!("`{name}`: expected an id below {}, found {id}", tokens.len());
                    return Err(Error::format(file.path(), reason));
                }
                roles.push((role.to_string(), id));
            }
        }
        Ok(Some(Self {
            model,
            pre: string(&key("pre"))?,
            tokens,
            token_types,
            scores,
            merges: merges.unwrap_or_default(),
            roles,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            chat_template: string("tokenizer.chat_template")?,
        }))
    }

    /// Returns the id of a role, for example `bos`.
    pub fn role(&self, name: &str) -> Option<u32> {
        self.roles.iter().find(|(role, _)| role == name).map(|&(_, id)| id)
    }

    /// Whether a token has a type; without types all are normal.
    #[cfg(feature = "tokenizers")]
    pub(crate) fn is(&self, id: usize, token_type: TokenType) -> bool {
        self.token_types.get(id).map_or(token_type == TokenType::Normal, |&found| found == token_type as i32)
    }

    /// Returns the vocabulary padded with unused tokens to the number of rows of the model's
    /// embeddings.
    pub(super) fn filled_up(&self, rows: usize) -> Result<Self> {
        let len = self.tokens.len();
        if len > rows {
            return Err(Error::argument("vocabulary", format!("at most the model's {rows} tokens"), len));
        }
        let mut full = self.clone();
        full.tokens.extend((len..rows).map(|id| format!("[PAD{id}]")));
        if len < rows {
            full.token_types.resize(len, TokenType::Normal as i32);
            full.token_types.resize(rows, TokenType::Unused as i32);
        }
        if !full.scores.is_empty() {
            full.scores.resize(rows, f32::MIN);
        }
        Ok(full)
    }

    pub(super) fn write(&self, writer: &mut GgufWriter<'_>) -> Result<()> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        writer.set(&key("model"), Value::String(&self.model))?;
        if let Some(pre) = &self.pre {
            writer.set(&key("pre"), Value::String(pre))?;
        }
        writer.set_strings(&key("tokens"), &self.tokens)?;
        if !self.scores.is_empty() {
            writer.set_f32s(&key("scores"), &self.scores)?;
        }
        if !self.token_types.is_empty() {
            writer.set_i32s(&key("token_type"), &self.token_types)?;
        }
        if !self.merges.is_empty() {
            writer.set_strings(&key("merges"), &self.merges)?;
        }
        for (role, id) in &self.roles {
            writer.set(&key(&format!("{role}_token_id")), Value::U32(*id))?;
        }
        let flags = [
            ("add_bos_token", self.add_bos),
            ("add_eos_token", self.add_eos),
            ("add_space_prefix", self.add_space_prefix),
        ];
        for (name, flag) in flags {
            if let Some(flag) = flag {
                writer.set(&key(name), Value::Bool(flag))?;
            }
        }
        if let Some(template) = &self.chat_template {
            writer.set("tokenizer.chat_template", Value::String(template))?;
        }
        Ok(())
    }
}
