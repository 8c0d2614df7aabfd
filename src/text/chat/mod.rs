//! Chat templates: a conversation as the text that a model was trained on.
//!
//! A template is Jinja, from `chat_template.jinja`, `tokenizer_config.json` or the metadata of a GGUF file, and is rendered as
//! `apply_chat_template` of `transformers` does.
//!
//! ```
//! use loquat::text::chat::{ChatMessage, ChatOptions, ChatTemplate};
//!
//! let template = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}\
//!                 {% if add_generation_prompt %}<|assistant|>\n{% endif %}";
//! let template = ChatTemplate::new(template, [("eos_token", "</s>")])?;
//! let messages = [ChatMessage::system("Be brief."), ChatMessage::user("Hello!")];
//! let text = template.render(&messages, &ChatOptions::default())?;
//! assert_eq!(text, "<|system|>\nBe brief.</s>\n<|user|>\nHello!</s>\n<|assistant|>\n");
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! A template comes with a model, from anybody: it sees the conversation and nothing else of the
//! machine. Compiling and rendering one takes at most about a second and 256 MB, and a stack of
//! 1 MB, whatever it says; one that needs more stops with an [`Error::Template`]:
//!
//! | of | at most |
//! |---|---|
//! | a template | 1 MiB; 200 000 names, numbers and signs; 80 brackets and blocks within each other |
//! | time | 250 million units, about a nanosecond each, and 200 more per byte of the conversation |
//! | texts and lists made, together | 64 MiB, and 32 bytes more per byte of the conversation |
//! | one text or list | 8 MiB, and 4 bytes more per byte of the conversation; lists 128 deep |
//! | the rendered text | twice as much |
//! | calls of macros | 320 expressions, blocks and calls within each other, or 700 KB of stack |
//!
//! The language is Jinja 3.1 as `transformers` sets it up: a sandbox without files, in which lists
//! and dictionaries cannot be changed, `trim_blocks`, `lstrip_blocks`, `break` and `continue`,
//! `generation`, `raise_exception`, `strftime_now` (in UTC) and its own `tojson`. There are no
//! other files (`include`, `extends`, `block`), filters of web pages and random numbers, `escape`
//! gives a plain text, and integers have 128 bits. Undefined attributes and Python's methods of
//! texts, lists and dictionaries are as in Python.
//!
//! | file | what |
//! |---|---|
//! | [`mod@self`] | [`ChatTemplate`], [`ChatMessage`], [`ChatOptions`]; templates of a folder |
//! | `lexer`, `parser` | a template's text as tokens, and as a tree |
//! | `render` | statements, expressions, macros |
//! | `value`, `arithmetic` | Python's values and operators |
//! | `filters`, `predicates`, `methods`, `functions` | what is named in a template |
//! | `format`, `json`, `date` | values as text |
//! | `limits` | what a template may use |

mod arithmetic;
mod date;
mod filters;
mod format;
mod functions;
mod json;
mod lexer;
mod limits;
mod methods;
mod names;
mod parser;
mod predicates;
mod render;
mod runtime;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::value::Value as JinjaValue;
use crate::error::{Error, Result};

/// The template's file in a model folder.
pub(crate) const TEMPLATE: &str = "chat_template.jinja";
/// The tokenizer's settings in a model folder.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The special tokens in a model folder.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// One message of a conversation. A template sees its keys in the order of the fields, without
/// those whose value is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatMessage {
    /// `"system"`, `"user"`, `"assistant"`, `"tool"` or what else the template knows.
    pub role: String,
    /// The text, or parts of it as objects; `null` or left out next to `tool_calls`.
    #[serde(default)]
    pub content: Value,
    /// Whatever else the template knows: `tool_calls`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ChatMessage {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<Value>) -> Self {
        Self { role: role.into(), content: content.into(), other: Map::new() }
    }

    /// What the model shall be.
    pub fn system(content: impl Into<Value>) -> Self {
        Self::new("system", content)
    }

    /// What the person says.
    pub fn user(content: impl Into<Value>) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: impl Into<Value>) -> Self {
        Self::new("assistant", content)
    }

    /// Adds a key that the template knows.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.other.insert(key.into(), value.into());
        self
    }
}

/// What a rendering needs beside the messages.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChatOptions {
    /// Whether the text ends where the assistant begins to speak; it does at first.
    pub add_generation_prompt: bool,
    /// Descriptions of the functions that the model may call, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// Texts to answer from.
    pub documents: Option<Vec<Value>>,
    /// Further variables of the template, for example `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, tools: None, documents: None, variables: Map::new() }
    }
}

impl ChatOptions {
    /// Whether the text ends where the assistant begins to speak.
    pub fn add_generation_prompt(self, add_generation_prompt: bool) -> Self {
        Self { add_generation_prompt, ..self }
    }

    /// Functions that the model may call.
    pub fn tools(self, tools: Vec<Value>) -> Self {
        Self { tools: Some(tools), ..self }
    }

    /// A further variable of the template.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

/// The templates of a model, and its special tokens. See the [module](self).
pub struct ChatTemplate {
    /// Parsed, by name.
    templates: BTreeMap<String, Vec<parser::Stmt>>,
    sources: BTreeMap<String, String>,
    special_tokens: Map<String, Value>,
}

/// The name of the template that is used if no other is asked for.
const DEFAULT: &str = "default";
/// The name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// From a template's text and the special tokens that it may name (`bos_token`, `eos_token`, …).
    ///
    /// # Errors
    /// [`Error::Template`] if it is no template.
    pub fn new<K: Into<String>, V: Into<Value>>(
        template: impl Into<String>,
        special_tokens: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let special_tokens = special_tokens.into_iter().map(|(name, token)| (name.into(), token.into())).collect();
        Self::with_names(BTreeMap::from([(DEFAULT.to_string(), template.into())]), special_tokens)
    }

    /// From several templates by name. `default` is rendered, or `tool_use` if there is one and tools are given.
    ///
    /// # Errors
    /// As for [`ChatTemplate::new`].
    pub fn with_names(sources: BTreeMap<String, String>, special_tokens: Map<String, Value>) -> Result<Self> {
        let parse = |(name, source): (&String, &String)| {
            Ok((name.clone(), parser::parse(source).map_err(|failure| failed(name, &failure))?))
        };
        let templates = sources.iter().map(parse).collect::<Result<_>>()?;
        Ok(Self { templates, sources, special_tokens })
    }

    /// The templates of a model folder: `chat_template.jinja` and `additional_chat_templates/`, else those of
    /// `tokenizer_config.json`; `None` if the model has none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] for files that cannot be read; as for [`ChatTemplate::new`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Option<Self>> {
        let folder = folder.as_ref();
        let config = read_object(&folder.join(TOKENIZER_CONFIG))?;
        let mut special_tokens = special_tokens(&config);
        for (name, token) in special_tokens_map(&read_object(&folder.join(SPECIAL_TOKENS))?) {
            special_tokens.entry(name).or_insert(token);
        }
        let mut sources = BTreeMap::new();
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| Error::io(path, e));
        if folder.join(TEMPLATE).exists() {
            sources.insert(DEFAULT.to_string(), read(&folder.join(TEMPLATE))?);
            let more = folder.join("additional_chat_templates");
            if more.is_dir() {
                for entry in std::fs::read_dir(&more).map_err(|e| Error::io(&more, e))? {
                    let path = entry.map_err(|e| Error::io(&more, e))?.path();
                    if let (Some(name), Some("jinja")) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) {
                        sources.insert(name.to_string_lossy().into_owned(), read(&path)?);
                    }
                }
            }
        } else {
            sources = named_templates(config.get("chat_template").unwrap_or(&Value::Null))
                .map_err(|reason| Error::format(folder.join(TOKENIZER_CONFIG), reason))?;
        }
        if sources.is_empty() {
            return Ok(None);
        }
        Self::with_names(sources, special_tokens).map(Some)
    }

    /// The templates that came with a tokenizer, from a folder or a GGUF file; `None` if there are none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if what came is no template; as for [`ChatTemplate::new`].
    #[cfg(feature = "tokenizers")]
    pub fn of(tokenizer: &super::Tokenizer) -> Result<Option<Self>> {
        let config = tokenizer.config().as_object().cloned().unwrap_or_default();
        let sources = named_templates(config.get("chat_template").unwrap_or(&Value::Null)).map_err(Error::Tokenizer)?;
        let mut tokens = special_tokens(&config);
        for role in super::Special::ALL {
            if let Some(token) = tokenizer.special(role).and_then(|id| tokenizer.id_to_token(id)) {
                tokens.insert(role.key().into(), token.into());
            }
        }
        if sources.is_empty() { Ok(None) } else { Self::with_names(sources, tokens).map(Some) }
    }

    /// The names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// A template's text.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }

    /// The conversation as text; to be tokenized without further special tokens.
    ///
    /// # Errors
    /// [`Error::Template`] for what the template itself refuses (roles in a wrong order), or if it uses more than it may.
    pub fn render(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        let tools = options.tools.as_ref().is_some_and(|_| self.sources.contains_key(TOOL_USE));
        let only = if self.sources.len() == 1 { self.sources.keys().next() } else { None };
        let name = if tools { TOOL_USE } else { only.map_or(DEFAULT, String::as_str) };
        self.render_named(name, messages, options)
    }

    /// As [`ChatTemplate::render`], with the template of a name.
    ///
    /// # Errors
    /// As there; [`Error::Argument`] if there is no such template.
    pub fn render_named(&self, name: &str, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        let Some(template) = self.templates.get(name) else {
            let names: Vec<&str> = self.names().collect();
            return Err(Error::argument("chat template", names.join(", "), name));
        };
        let mut context = self.special_tokens.clone();
        context.insert("messages".into(), messages.iter().map(message_json).collect());
        context.insert("tools".into(), options.tools.clone().into());
        context.insert("documents".into(), options.documents.clone().into());
        context.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        context.extend(options.variables.clone());
        let budget = limits::Budget::new(context.values().map(json_size).sum());
        let variable = |(key, value): (&String, &Value)| Ok((Arc::from(key.as_str()), JinjaValue::from_json(value)?));
        let context: limits::Result<Vec<(Arc<str>, JinjaValue)>> = context.iter().map(variable).collect();
        context.and_then(|context| render::render(template, context, &budget)).map_err(|failure| failed(name, &failure))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sources, special_tokens, .. } = self;
        f.debug_struct("ChatTemplate").field("sources", sources).field("special_tokens", special_tokens).finish()
    }
}

/// Names of a message's reasoning; templates read the first, and some the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message as `transformers` gives it to a template: without keys whose value is `null`, with
/// its reasoning under the names that templates know.
fn message_json(message: &ChatMessage) -> Value {
    let mut json = Map::new();
    let own = [("role", Value::from(message.role.as_str())), ("content", message.content.clone())];
    let other = message.other.iter().map(|(key, value)| (key.as_str(), value.clone()));
    for (key, value) in own.into_iter().chain(other).filter(|(_, value)| !value.is_null()) {
        json.insert(key.into(), value);
    }
    if let Some(reasoning) = REASONING.iter().find_map(|key| json.get(*key)).cloned() {
        let thinking = json.get(REASONING[1]).unwrap_or(&reasoning).clone();
        json.insert(REASONING[0].into(), reasoning);
        json.shift_insert(0, REASONING[1].into(), thinking);
    }
    Value::Object(json)
}

/// About the bytes of a value.
fn json_size(value: &Value) -> usize {
    8 + match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(json_size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + json_size(value)).sum(),
        _ => 0,
    }
}

fn failed(name: &str, failure: &limits::Failure) -> Error {
    let reason = match failure.line {
        Some(line) => format!("line {line}: {}", failure.reason),
        None => failure.reason.clone(),
    };
    Error::Template { name: name.into(), reason }
}

/// A JSON object in a file; an empty one if there is no file.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("expected a JSON object: {e}")))
}

/// `chat_template` of `tokenizer_config.json`: a text, or a list of objects with `name` and `template`.
fn named_templates(value: &Value) -> std::result::Result<BTreeMap<String, String>, String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(String::from);
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::String(template) => Ok(BTreeMap::from([(DEFAULT.to_string(), template.clone())])),
        Value::Array(list) => {
            let named = |entry| text(entry, "name").zip(text(entry, "template"));
            let all: Option<BTreeMap<String, String>> = list.iter().map(named).collect();
            all.ok_or_else(|| "expected `name` and `template` in each entry of `chat_template`".into())
        }
        _ => Err("expected a text or a list in `chat_template`".into()),
    }
}

/// The special tokens of `tokenizer_config.json`, each a text or an object with `content`.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let is_token = |name: &str| name.ends_with("_token") && !name.starts_with("add_") || name == EXTRA;
    config.iter().filter(|(name, _)| is_token(name)).filter_map(token).collect()
}

/// The tokens of `special_tokens_map.json`.
fn special_tokens_map(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter_map(token).collect()
}

const EXTRA: &str = "additional_special_tokens";

fn token((name, value): (&String, &Value)) -> Option<(String, Value)> {
    let content = |value: &Value| match value {
        Value::String(token) => Some(token.clone()),
        Value::Object(token) => token.get("content").and_then(Value::as_str).map(String::from),
        _ => None,
    };
    let value = match value {
        Value::Array(tokens) => tokens.iter().filter_map(content).collect::<Vec<_>>().into(),
        one => content(one)?.into(),
    };
    Some((name.clone(), value))
}
