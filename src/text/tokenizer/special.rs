//! Which token plays which part: the roles that a `tokenizer.json` leaves unsaid.
//!
//! `tokenizer.json` marks tokens as special, but not what each is for; that stands beside it, in
//! `tokenizer_config.json` or `special_tokens_map.json`. Where neither is there, the names that the published models use
//! decide.

use serde_json::Value;

/// The part that a special token plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// Begins a text.
    Bos,
    /// Ends a text; generation stops at it.
    Eos,
    /// Stands for what the vocabulary lacks.
    Unk,
    /// Stands between two texts, and ends an encoder's input.
    Sep,
    /// Fills a batch's short rows.
    Pad,
    /// Opens an encoder's input; its hidden state stands for the whole text.
    Cls,
    /// Hides a token that a masked language model shall guess.
    Mask,
}

impl Special {
    /// All roles, in the order of `transformers`.
    pub const ALL: [Special; 7] =
        [Special::Bos, Special::Eos, Special::Unk, Special::Sep, Special::Pad, Special::Cls, Special::Mask];

    /// The key of `tokenizer_config.json`, for example `eos_token`.
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

    /// Spellings by which published tokenizers call the role, best first.
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
