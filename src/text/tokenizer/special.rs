//! Roles of special tokens.
//!
//! `tokenizer.json` marks tokens as special, but does not define their roles;
//! `tokenizer_config.json` or `special_tokens_map.json` do. Without them, the names used by
//! published models decide.

use serde_json::Value;

/// Role of a special token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// Begins a text.
    Bos,
    /// Ends a text; stops generation.
    Eos,
    /// Replaces text that is not in the vocabulary.
    Unk,
    /// Separates two texts, and ends an encoder's input.
    Sep,
    /// Pads short sequences of a batch.
    Pad,
    /// Starts an encoder's input; its hidden state represents the whole text.
    Cls,
    /// Replaces a token that a masked language model predicts.
    Mask,
}

impl Special {
    /// All roles, in the order of `transformers`.
    pub const ALL: [Special; 7] =
        [Special::Bos, Special::Eos, Special::Unk, Special::Sep, Special::Pad, Special::Cls, Special::Mask];

    /// Returns the key in `tokenizer_config.json`, for example `eos_token`.
    pub fn key(self) -> &'static str {
        match self {
            Special::Bos => "bos_token",
            Special::Eos => "eos_token",
            Special::Unk => "unk_token",
            Special::Sep => "sep_token",
            Special::Pad => "pad_token",
            Special::Cls => "cls_token",
            Special::Mask => "mask_token",
        }
    }

    /// Spellings of the role in published tokenizers, best first.
    pub(super) fn spellings(self) -> &'static [&'static str] {
        match self {
            Special::Bos => &["<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<|bos|>", "<|endoftext|>"],
            Special::Eos => &["</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|eos|>", "<|im_end|>", "<|endoftext|>"],
            Special::Unk => &["<unk>", "[UNK]", "<|unk|>"],
            Special::Sep => &["[SEP]"],
            Special::Pad => &["<pad>", "[PAD]", "<|pad|>"],
            Special::Cls => &["[CLS]"],
            Special::Mask => &["[MASK]", "<mask>", "<|mask|>"],
        }
    }

    /// The token that a configuration names for the role: a string, or an object with `content`.
    pub(super) fn in_config(self, config: &Value) -> Option<&str> {
        match config.get(self.key())? {
            Value::String(token) => Some(token),
            object => object.get("content")?.as_str(),
        }
    }
}
