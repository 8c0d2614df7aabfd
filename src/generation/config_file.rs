//! Reading `generation_config.json`.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::generation::config::{EarlyStopping, GenerationConfig};

/// Name of the file.
const FILE: &str = "generation_config.json";

/// Keys of unsupported features that would change the text, with the value that has no effect.
const NOT_BUILT: &[(&str, f64)] = &[
    ("assistant_ensemble_weight", 0.0),
    ("constraints", 0.0),
    ("dola_layers", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("force_words_ids", 0.0),
    ("forced_decoder_ids", 0.0),
    ("guidance_scale", 1.0),
    ("penalty_alpha", 0.0),
    ("token_healing", 0.0),
    ("top_h", 1.0),
    ("watermarking_config", 0.0),
];

/// Supported keys.
const READ: &[&str] = &[
    "max_new_tokens",
    "max_length",
    "min_new_tokens",
    "min_length",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "exponential_decay_length_penalty",
    "remove_invalid_values",
    "eos_token_id",
    "stop_strings",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "length_penalty",
    "early_stopping",
    "num_return_sequences",
    "max_time",
];

/// Keys that do not change the text: ids for padding and encoder-decoder models; outputs, caches,
/// compilation and assistants of `transformers`.
const HARMLESS: &[&str] = &[
    "bos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "transformers_version",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    "renormalize_logits",
    "use_cache",
    "cache_implementation",
    "cache_config",
    "return_legacy_cache",
    "prefill_chunk_size",
    "low_memory",
    "compile_config",
    "disable_compile",
    "is_assistant",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "assistant_confidence_threshold",
    "assistant_early_exit",
    "assistant_lookbehind",
    "target_lookbehind",
    "prompt_lookup_num_tokens",
    "max_matching_ngram_size",
    "use_mtp",
    "generation_kwargs",
    "continuous_batching_config",
    "use_model_defaults",
    "trust_remote_code",
    // Of models with custom code.
    "chat_format",
    "max_window_size",
    "max_context_size",
    "user_token_id",
    "assistant_token_id",
];

impl GenerationConfig {
    /// Reads the settings of a model: `generation_config.json`, or without that file the end tokens
    /// of `config.json`. For a `.gguf` file, its end tokens; GGUF stores no other settings of
    /// generation.
    ///
    /// # Errors
    /// Same as [`GenerationConfig::from_json`]; [`Error::Io`] and [`Error::Format`] for files that
    /// cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let folder = path.as_ref();
        if folder.is_file() {
            let eos_token_ids = Keys(&crate::models::read_config(folder)?).ids("eos_token_id")?;
            return Ok(Self { eos_token_ids, from_file: true, ..Self::default() });
        }
        let read = |name: &str| -> Result<Option<Value>> {
            let path = folder.join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::format(path, e.to_string())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(Error::io(path, error)),
            }
        };
        let mut config = read(FILE)?.as_ref().map(Self::from_json).transpose()?.unwrap_or_default();
        if config.eos_token_ids.is_empty() {
            let model = read("config.json")?.unwrap_or_default();
            config.eos_token_ids = Keys(&model).ids("eos_token_id")?;
        }
        Ok(config)
    }

    /// Reads the content of a `generation_config.json`. Keys that start with `_` are ignored.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid value, for an unknown key, and for a key of `transformers`
    /// that would change the text but is not supported.
    pub fn from_json(json: &Value) -> Result<Self> {
        if !json.is_object() {
            return Err(wrong(FILE, "a JSON object", json));
        }
        let keys = Keys(json);
        let is_known = |key: &str| {
            let not_built = NOT_BUILT.iter().any(|(known, _)| *known == key);
            key.starts_with('_') || not_built || READ.contains(&key) || HARMLESS.contains(&key)
        };
        if let Some((key, value)) = json.as_object().into_iter().flatten().find(|(key, _)| !is_known(key)) {
            return Err(wrong(key, "no such key in generation_config.json (it is unknown)", value));
        }
        for &(key, neutral) in NOT_BUILT {
            let value = keys.get(key);
            let changes_nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(list) => list.is_empty(),
                _ => value.as_f64() == Some(neutral),
            };
            if !changes_nothing {
                return Err(wrong(key, "no value, as the key is not supported", value));
            }
        }
        let bias = keys.list("sequence_bias", "a list of [ids, bias]", |pair| {
            let [ids, bias] = pair.as_array()?.as_slice() else { return None };
            Some((as_ids(ids)?, bias.as_f64()? as f32))
        })?;
        let seconds = keys.number("max_time")?;
        let decay = match keys.get("exponential_decay_length_penalty") {
            Value::Null => None,
            value => match value.as_array().map(Vec::as_slice) {
                Some([start, factor]) if start.is_u64() && factor.is_number() => {
                    Some((start.as_u64().unwrap_or(0) as usize, factor.as_f64().unwrap_or(1.0) as f32))
                }
                _ => return Err(wrong("exponential_decay_length_penalty", "[start, factor]", value)),
            },
        };
        let config = Self {
            max_new_tokens: keys.count("max_new_tokens")?,
            max_length: keys.count("max_length")?,
            min_new_tokens: keys.count("min_new_tokens")?,
            min_length: keys.count("min_length")?,
            do_sample: keys.flag("do_sample")?,
            temperature: keys.number("temperature")?,
            top_k: keys.count("top_k")?,
            top_p: keys.number("top_p")?,
            min_p: keys.number("min_p")?,
            typical_p: keys.number("typical_p")?,
            epsilon_cutoff: keys.number("epsilon_cutoff")?,
            eta_cutoff: keys.number("eta_cutoff")?,
            repetition_penalty: keys.number("repetition_penalty")?,
            presence_penalty: keys.number("presence_penalty")?,
            frequency_penalty: keys.number("frequency_penalty")?,
            no_repeat_ngram_size: keys.count("no_repeat_ngram_size")?,
            bad_words_ids: keys.list("bad_words_ids", "a list of lists of ids", as_ids)?,
            sequence_bias: bias,
            suppress_tokens: keys.ids("suppress_tokens")?,
            begin_suppress_tokens: keys.ids("begin_suppress_tokens")?,
            forced_bos_token_id: keys.ids("forced_bos_token_id")?.first().copied(),
            forced_eos_token_ids: keys.ids("forced_eos_token_id")?,
            exponential_decay_length_penalty: decay,
            remove_invalid_values: keys.flag("remove_invalid_values")?,
            eos_token_ids: keys.ids("eos_token_id")?,
            stop_strings: match keys.get("stop_strings") {
                Value::String(text) => vec![text.clone()],
                _ => keys.list("stop_strings", "a list of strings", |text| text.as_str().map(str::to_string))?,
            },
            num_beams: keys.count("num_beams")?,
            num_beam_groups: keys.count("num_beam_groups")?,
            diversity_penalty: keys.number("diversity_penalty")?,
            length_penalty: keys.number("length_penalty")?,
            early_stopping: keys.value("early_stopping", "true, false or \"never\"", |value| match value {
                Value::Bool(true) => Some(EarlyStopping::True),
                Value::Bool(false) => Some(EarlyStopping::False),
                Value::String(text) if text == "never" => Some(EarlyStopping::Never),
                _ => None,
            })?,
            num_return_sequences: keys.count("num_return_sequences")?,
            max_time: match seconds.map(std::time::Duration::try_from_secs_f32).transpose() {
                Ok(time) => time,
                Err(_) => return Err(wrong("max_time", "a number of seconds", keys.get("max_time"))),
            },
            from_file: true,
            ..Self::default()
        };
        config.check_ranges().map_err(|error| match error {
            Error::Argument { name, expected, found } => Error::config(name, expected, found),
            other => other,
        })?;
        Ok(config)
    }
}

/// Reads values by key; `null` counts as absent.
struct Keys<'j>(&'j Value);

impl<'j> Keys<'j> {
    fn get(&self, key: &str) -> &'j Value {
        self.0.get(key).unwrap_or(&Value::Null)
    }

    fn value<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.get(key) {
            Value::Null => Ok(None),
            value => read(value).map(Some).ok_or_else(|| wrong(key, expected, value)),
        }
    }

    fn count(&self, key: &str) -> Result<Option<usize>> {
        self.value(key, "a whole number", |value| value.as_u64().and_then(|n| usize::try_from(n).ok()))
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        self.value(key, "a number", |value| value.as_f64().map(|x| x as f32))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key, "true or false", Value::as_bool)
    }

    fn list<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let items = |value: &Value| value.as_array()?.iter().map(&read).collect();
        Ok(self.value(key, expected, items)?.unwrap_or_default())
    }

    /// Reads one id or a list of ids.
    fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let one_or_more = |value: &Value| as_id(value).map(|id| vec![id]).or_else(|| as_ids(value));
        Ok(self.value(key, "a token id or a list of them", one_or_more)?.unwrap_or_default())
    }
}

fn as_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

fn as_ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(as_id).collect()
}

fn wrong(key: &str, expected: &str, found: &Value) -> Error {
    let mut found = found.to_string();
    if found.len() > 80 {
        found = found.chars().take(80).chain(['…']).collect();
    }
    Error::config(key, expected, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_llama_file_says_how_to_draw() {
        let file = json!({
            "bos_token_id": 128000, "do_sample": true, "eos_token_id": [128001, 128008, 128009], "temperature": 0.6,
            "max_length": 4096, "top_p": 0.9, "transformers_version": "4.42.3", "_of_somebody": {"else": 1}, "top_k": null,
        });
        let config = GenerationConfig::from_json(&file).unwrap();
        assert_eq!(config.eos_token_ids, [128001, 128008, 128009]);
        assert_eq!((config.temperature, config.top_p, config.top_k), (Some(0.6), Some(0.9), None));
        assert_eq!((config.do_sample, config.new_tokens_limit(4000)), (Some(true), 96));
        // The caller's settings come first, then the folder's.
        let asked = GenerationConfig::default().max_new_tokens(7).top_p(0.5).with_defaults(&config);
        assert_eq!((asked.new_tokens_limit(4000), asked.top_p, asked.temperature), (7, Some(0.5), Some(0.6)));
    }

    #[test]
    fn keys_that_are_not_known_are_named() {
        let misspelt = json!({"max_new_tokens": 3, "repetion_penalty": 3.0});
        let error = GenerationConfig::from_json(&misspelt).unwrap_err().to_string();
        assert!(error.contains("`repetion_penalty`") && error.contains("unknown"), "{error}");
        let lists = [READ, HARMLESS].concat();
        for (i, key) in lists.iter().enumerate() {
            assert!(!lists[..i].contains(key) && !NOT_BUILT.iter().any(|(other, _)| other == key), "{key} twice");
        }
    }

    #[test]
    fn every_setting_is_read() {
        let file = json!({
            "max_new_tokens": 5, "min_new_tokens": 2, "min_length": 1, "min_p": 0.1, "typical_p": 0.9, "epsilon_cutoff": 0.01,
            "eta_cutoff": 0.02, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3, "bad_words_ids": [[1, 2], [3]],
            "sequence_bias": [[[4], 1.5]], "suppress_tokens": [5], "begin_suppress_tokens": [6], "forced_bos_token_id": 7,
            "forced_eos_token_id": [8, 9], "exponential_decay_length_penalty": [3, 1.5], "remove_invalid_values": true,
            "stop_strings": "END", "max_time": 1.5, "eos_token_id": 10, "num_beams": 1, "guidance_scale": null,
        });
        let config = GenerationConfig::from_json(&file).unwrap();
        assert_eq!((config.bad_words_ids, config.sequence_bias), (vec![vec![1, 2], vec![3]], vec![(vec![4], 1.5)]));
        assert_eq!((config.forced_bos_token_id, config.forced_eos_token_ids), (Some(7), vec![8, 9]));
        assert_eq!((config.stop_strings, config.eos_token_ids), (vec!["END".to_string()], vec![10]));
        assert_eq!(config.max_time, Some(std::time::Duration::from_millis(1500)));
        assert_eq!(config.exponential_decay_length_penalty, Some((3, 1.5)));
    }

    #[test]
    fn what_is_wrong_or_not_built_is_named() {
        for (key, value) in [
            ("temperature", json!("hot")),
            ("temperature", json!(-1.0)),
            ("top_p", json!(1.5)),
            ("top_k", json!(-3)),
            ("eos_token_id", json!([1, "two"])),
            ("eos_token_id", json!(-1)),
            ("do_sample", json!(1)),
            ("bad_words_ids", json!([[]])),
            ("max_time", json!(-2)),
            ("exponential_decay_length_penalty", json!([1])),
            ("guidance_scale", json!(1.5)),
            ("watermarking_config", json!({"bias": 2.0})),
        ] {
            let error = GenerationConfig::from_json(&json!({ key: value })).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        assert!(GenerationConfig::from_json(&json!([])).is_err());
    }

    #[test]
    fn a_folder_without_the_file_has_the_end_tokens_of_its_model() {
        let folder = tempfile::tempdir().unwrap();
        assert!(GenerationConfig::open(folder.path()).unwrap().eos_token_ids.is_empty());
        std::fs::write(folder.path().join("config.json"), r#"{"eos_token_id": 66}"#).unwrap();
        assert_eq!(GenerationConfig::open(folder.path()).unwrap().eos_token_ids, [66]);
        std::fs::write(folder.path().join(FILE), r#"{"eos_token_id": [1, 2]}"#).unwrap();
        assert_eq!(GenerationConfig::open(folder.path()).unwrap().eos_token_ids, [1, 2]);
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(GenerationConfig::open(folder.path()).is_err());
    }
}
