//! Chat templates: format a conversation as the text that a model was trained on.
//!
//! A template is written in Jinja and comes from `chat_template.jinja`, `tokenizer_config.json` or
//! the metadata of a GGUF file. The result is that of `apply_chat_template` of `transformers`.
//!
//! ```
//! use loquat::text::chat::{ChatMessage, ChatOptions, ChatTemplate};
//!
//! let template = "{% for m in messages %}<|{{ m.role }}|>\n\
//!                 {{ m.content }}{{ eos_token }}\n{% endfor %}\
//!                 {% if add_generation_prompt %}<|assistant|>\n{% endif %}";
//! let template = ChatTemplate::new(template, [("eos_token", "</s>")])?;
//! let messages = [ChatMessage::system("Be brief."), ChatMessage::user("Hello!")];
//! let text = template.render(&messages, &ChatOptions::default())?;
//! assert_eq!(text, "<|system|>\nBe brief.</s>\n<|user|>\nHello!</s>\n<|assistant|>\n");
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! Templates come with models and are not trusted: a template sees only the conversation. Compiling
//! and rendering one takes at most about a second, 256 MB and 1 MB of stack; exceeding a limit is
//! an [`Error::Template`]:
//!
//! | resource | limit |
//! |---|---|
//! | template | 1 MiB; 200 000 tokens; 80 nested brackets and blocks |
//! | time | 250 million units of about a nanosecond, plus 200 per byte of the conversation |
//! | strings and lists, in total | 64 MiB, plus 32 bytes per byte of the conversation |
//! | one string or list | 8 MiB, plus 4 bytes per byte of the conversation; lists nested 128 deep |
//! | rendered text | twice the limit of one string |
//! | evaluation | 320 nested expressions, blocks and macro calls, or 700 KB of stack |
//!
//! The language is Jinja 3.1 as configured by `transformers`: a sandbox without file access and
//! with immutable lists and dictionaries, `trim_blocks`, `lstrip_blocks`, `break` and `continue`,
//! `generation`, `raise_exception`, `strftime_now` (in UTC) and its own `tojson`. Undefined
//! attributes and the methods of strings, lists and dictionaries behave as in Python. Differences:
//! other files (`include`, `extends`, `block`), HTML filters and `random` are not supported,
//! `escape` returns a plain string, and integers have 128 bits.
//!
//! | file | content |
//! |---|---|
//! | [`mod@self`] | [`ChatTemplate`], [`ChatMessage`], [`ChatOptions`]; reading the templates of a folder |
//! | `lexer`, `parser` | tokens and syntax tree |
//! | `render` | statements, expressions, macros |
//! | `value`, `arithmetic` | Python's values and operators |
//! | `filters`, `predicates`, `methods`, `functions` | built-in filters, tests, methods and functions |
//! | `format`, `json`, `date` | formatting of values |
//! | `limits` | resource limits |

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

/// File name of the template in a model folder.
pub(crate) const TEMPLATE: &str = "chat_template.jinja";
/// File name of the tokenizer's settings in a model folder.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// File name of the special tokens in a model folder.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// One message of a conversation. A template sees its keys in the order of the fields, without
/// those whose value is `null`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatMessage {
    /// `"system"`, `"user"`, `"assistant"`, `"tool"` or any other role that the template supports.
    pub role: String,
    /// A string, or a list of objects for its parts; `null` or absent with `tool_calls`.
    #[serde(default)]
    pub content: Value,
    /// Any other keys that the template supports: `tool_calls`, `name`, `reasoning_content`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl ChatMessage {
    /// Creates a message with any role.
    pub fn new(role: impl Into<String>, content: impl Into<Value>) -> Self {
        Self { role: role.into(), content: content.into(), other: Map::new() }
    }

    /// Creates a system message: instructions for the model.
    pub fn system(content: impl Into<Value>) -> Self {
        Self::new("system", content)
    }

    /// Creates a user message.
    pub fn user(content: impl Into<Value>) -> Self {
        Self::new("user", content)
    }

    /// Creates an assistant message: an earlier answer of the model.
    pub fn assistant(content: impl Into<Value>) -> Self {
        Self::new("assistant", content)
    }

    /// Adds another key of the message.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.other.insert(key.into(), value.into());
        self
    }
}

/// Options of a rendering besides the messages.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChatOptions {
    /// Whether to append the start of the assistant's answer. Default: true.
    pub add_generation_prompt: bool,
    /// Functions that the model may call, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from.
    pub documents: Option<Vec<Value>>,
    /// Other variables of the template, for example `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Default for ChatOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, tools: None, documents: None, variables: Map::new() }
    }
}

impl ChatOptions {
    /// Sets whether to append the start of the assistant's answer. Default: true.
    pub fn add_generation_prompt(self, add_generation_prompt: bool) -> Self {
        Self { add_generation_prompt, ..self }
    }

    /// Sets the functions that the model may call, as JSON schemas.
    pub fn tools(self, tools: Vec<Value>) -> Self {
        Self { tools: Some(tools), ..self }
    }

    /// Adds another variable of the template.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

/// The chat templates of a model, with its special tokens.
///
/// # Examples
/// ```
/// use loquat::text::chat::{ChatMessage, ChatOptions, ChatTemplate};
///
/// let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}";
/// let template = ChatTemplate::new(source, [("eos_token", "</s>")])?;
/// let text = template.render(&[ChatMessage::user("Hello!")], &ChatOptions::default())?;
/// assert_eq!(text, "user: Hello!</s>");
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// See the [module](self) for the language and its limits.
pub struct ChatTemplate {
    /// Syntax trees by name.
    templates: BTreeMap<String, Vec<parser::Stmt>>,
    sources: BTreeMap<String, String>,
    special_tokens: Map<String, Value>,
}

/// Name of the template used by default.
const DEFAULT: &str = "default";
/// Name of the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// Creates a template from its source and the special tokens that it may use (`bos_token`,
    /// `eos_token`, …).
    ///
    /// # Errors
    /// [`Error::Template`] if the template is invalid.
    pub fn new<K: Into<String>, V: Into<Value>>(
        template: impl Into<String>,
        special_tokens: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        let special_tokens = special_tokens.into_iter().map(|(name, token)| (name.into(), token.into())).collect();
        Self::with_names(BTreeMap::from([(DEFAULT.to_string(), template.into())]), special_tokens)
    }

    /// Creates the templates from several sources by name. [`ChatTemplate::render`] uses `tool_use`
    /// if there is one and tools are given, otherwise `default`.
    ///
    /// # Errors
    /// Same as [`ChatTemplate::new`].
    pub fn with_names(sources: BTreeMap<String, String>, special_tokens: Map<String, Value>) -> Result<Self> {
        let parse = |(name, source): (&String, &String)| {
            Ok((name.clone(), parser::parse(source).map_err(|failure| failed(name, &failure))?))
        };
        let templates = sources.iter().map(parse).collect::<Result<_>>()?;
        Ok(Self { templates, sources, special_tokens })
    }

    /// Opens the templates of a model folder: `chat_template.jinja` and
    /// `additional_chat_templates/`, otherwise those of `tokenizer_config.json`. Returns `None` if
    /// there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] for files that cannot be read. Otherwise same as
    /// [`ChatTemplate::new`].
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

    /// Returns the templates stored with a tokenizer, from a folder or a GGUF file; `None` if there
    /// are none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for an invalid `chat_template` entry. Otherwise same as
    /// [`ChatTemplate::new`].
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

    /// Returns the names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// Returns the source of a template.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.sources.get(name).map(String::as_str)
    }

    /// Renders a conversation. Encode the result without adding special tokens.
    ///
    /// # Errors
    /// [`Error::Template`] if the template raises an error, for example for roles in a wrong order,
    /// or exceeds a limit.
    pub fn render(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String> {
        let tools = options.tools.as_ref().is_some_and(|_| self.sources.contains_key(TOOL_USE));
        let only = if self.sources.len() == 1 { self.sources.keys().next() } else { None };
        let name = if tools { TOOL_USE } else { only.map_or(DEFAULT, String::as_str) };
        self.render_named(name, messages, options)
    }

    /// Renders a conversation with the template of the given name.
    ///
    /// # Errors
    /// Same as [`ChatTemplate::render`]; [`Error::Argument`] if there is no such template.
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

/// Keys of a message's reasoning: templates read the first, some the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// Converts a message as `transformers` does: without keys whose value is `null`, and with the
/// reasoning under every key that templates read.
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

/// Approximate size of a value in bytes.
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

/// Reads a file with a JSON object; an empty one if there is no file.
fn read_object(path: &Path) -> Result<Map<String, Value>> {
    if !path.exists() {
        return Ok(Map::new());
    }
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    serde_json::from_slice(&text).map_err(|e| Error::format(path, format!("expected a JSON object: {e}")))
}

/// Reads `chat_template` of `tokenizer_config.json`: a string, or a list of objects with `name` and
/// `template`.
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
        _ => Err("expected a string or a list in `chat_template`".into()),
    }
}

/// Special tokens of `tokenizer_config.json`, each a string or an object with `content`.
fn special_tokens(config: &Map<String, Value>) -> Map<String, Value> {
    let is_token = |name: &str| name.ends_with("_token") && !name.starts_with("add_") || name == EXTRA;
    config.iter().filter(|(name, _)| is_token(name)).filter_map(token).collect()
}

/// Special tokens of `special_tokens_map.json`.
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
