//! Rotary position embeddings in a `config.json`: `rope_theta` with `rope_scaling` (`transformers`
//! 4), or `rope_parameters` (`transformers` 5).

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::nn::RopeScaling;
use crate::nn::rotary::yarn_attention_factor;

/// Context length before scaling, in either of two places.
pub(crate) const ORIGINAL_POSITIONS: &str = "original_max_position_embeddings";

/// Keys that some files have under scalings that do not use them, with the value that has no
/// effect.
const NEUTRAL: [(&str, f64); 2] = [("factor", 1.0), ("attention_factor", 1.0)];

/// The keys of rotary position embeddings.
#[derive(Clone, Copy)]
pub(crate) struct RopeKeys<'c> {
    /// `rope_theta`, next to the objects.
    pub(crate) theta: Option<f64>,
    /// `rope_scaling`, which takes precedence over `rope_parameters` unless it is empty.
    pub(crate) scaling: Option<&'c Map<String, Value>>,
    /// `rope_parameters`.
    pub(crate) parameters: Option<&'c Map<String, Value>>,
    /// `max_position_embeddings`.
    pub(crate) max_positions: usize,
    /// [`ORIGINAL_POSITIONS`], next to the objects.
    pub(crate) original_max_positions: Option<f64>,
    /// Whether only a part of each head's columns may be rotated:
    /// [`RopeKeys::partial_rotary_factor`].
    pub(crate) partial: bool,
}

impl<'c> RopeKeys<'c> {
    /// Reads the keys of a `config.json`.
    pub(crate) fn of(config: &'c Value) -> Self {
        Self {
            theta: config["rope_theta"].as_f64(),
            scaling: config["rope_scaling"].as_object(),
            parameters: config["rope_parameters"].as_object(),
            max_positions: config["max_position_embeddings"].as_u64().unwrap_or(0) as usize,
            original_max_positions: config[ORIGINAL_POSITIONS].as_f64(),
            partial: false,
        }
    }

    /// Returns `theta` (default: 10 000) and the scaling.
    ///
    /// # Errors
    /// [`Error::Config`] for an unsupported scaling or key, and for a missing or invalid number.
    pub(crate) fn read(&self) -> Result<(f64, RopeScaling)> {
        self.dict().read(self)
    }

    /// Returns the fraction of each head's columns that are rotated, from the object; `None` if it
    /// has none.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a number.
    pub(crate) fn partial_rotary_factor(&self) -> Result<Option<f64>> {
        self.dict().number("partial_rotary_factor")
    }

    fn dict(&self) -> Dict<'c> {
        let scaling = self.scaling.filter(|dict| !dict.is_empty());
        match (scaling, self.parameters) {
            (None, Some(dict)) => Dict { key: "rope_parameters", dict: Some(dict) },
            (dict, _) => Dict { key: "rope_scaling", dict },
        }
    }
}

/// Returns the object of `rope_scaling` for these values, with `rope_theta` in it.
/// [`RopeKeys::read`] reads it back.
pub(crate) fn to_json(theta: f64, scaling: &RopeScaling) -> Map<String, Value> {
    let mut json = match scaling {
        RopeScaling::Default => json!({ "rope_type": "default" }),
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Dynamic { factor, max_positions } => {
            json!({ "rope_type": "dynamic", "factor": factor, ORIGINAL_POSITIONS: max_positions })
        }
        RopeScaling::Yarn { factor, original_max_positions, attention_factor, beta_fast, beta_slow, truncate } => {
            json!({
                "rope_type": "yarn",
                "factor": factor,
                ORIGINAL_POSITIONS: original_max_positions,
                "attention_factor": attention_factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "truncate": truncate,
            })
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            ORIGINAL_POSITIONS: original_max_positions,
        }),
        RopeScaling::LongRope { divisors, attention_factor } => json!({
            "rope_type": "longrope",
            "short_factor": divisors,
            "long_factor": divisors,
            "factor": 1.0,
            "attention_factor": attention_factor,
        }),
    };
    json["rope_theta"] = theta.into();
    match json {
        Value::Object(map) => map,
        _ => unreachable!("an object"),
    }
}

/// The object of `rope_scaling` or `rope_parameters`.
struct Dict<'c> {
    key: &'static str,
    dict: Option<&'c Map<String, Value>>,
}

impl Dict<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.dict?.get(key)
    }

    fn read(&self, keys: &RopeKeys<'_>) -> Result<(f64, RopeScaling)> {
        let theta = self.number("rope_theta")?.or(keys.theta).unwrap_or(10_000.0);
        let named = |key| self.get(key).filter(|v| !v.is_null());
        let rope_type = named("rope_type").or_else(|| named("type"));
        let rope_type = rope_type.map_or(Some("default"), Value::as_str).unwrap_or("not a string");
        // Scalings that do not use the original length ignore it.
        let mut known =
            vec!["rope_type", "type", "rope_theta", "partial_rotary_factor", ORIGINAL_POSITIONS, "finetuned"];
        if !keys.partial && self.number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(self.error(
                "partial_rotary_factor",
                "1",
                self.get("partial_rotary_factor").unwrap_or(&Value::Null),
            ));
        }
        let max_positions = keys.max_positions;
        let beside = keys.original_max_positions;
        let original = || {
            let inside = self.number(ORIGINAL_POSITIONS)?;
            Ok(beside.or(inside).map_or(max_positions, |positions| positions as usize))
        };
        let scaling = match rope_type {
            "default" => RopeScaling::Default,
            "linear" => {
                known.push("factor");
                RopeScaling::Linear { factor: self.needed("factor")? }
            }
            "dynamic" => {
                known.push("factor");
                RopeScaling::Dynamic { factor: self.needed("factor")?, max_positions }
            }
            "yarn" => {
                known.extend(["factor", "attention_factor", "beta_fast", "beta_slow"]);
                known.extend(["mscale", "mscale_all_dim", "truncate"]);
                let original_max_positions = original()?;
                let stretched = max_positions as f64 / original_max_positions.max(1) as f64;
                let factor = self.number("factor")?.unwrap_or(stretched);
                let of = |mscale| yarn_attention_factor(factor, mscale);
                let attention_factor = match (self.positive("mscale")?, self.positive("mscale_all_dim")?) {
                    (Some(mscale), Some(all)) => Some(of(mscale) / of(all)),
                    _ => None,
                };
                let truncate = match named("truncate") {
                    None => true,
                    Some(truncate) => {
                        truncate.as_bool().ok_or_else(|| self.error("truncate", "true or false", truncate))?
                    }
                };
                RopeScaling::Yarn {
                    factor,
                    original_max_positions,
                    attention_factor: self.number("attention_factor")?.or(attention_factor),
                    beta_fast: self.positive("beta_fast")?.unwrap_or(32.0),
                    beta_slow: self.positive("beta_slow")?.unwrap_or(1.0),
                    truncate,
                }
            }
            "llama3" => {
                known.extend(["factor", "low_freq_factor", "high_freq_factor"]);
                RopeScaling::Llama3 {
                    factor: self.needed("factor")?,
                    low_freq_factor: self.needed("low_freq_factor")?,
                    high_freq_factor: self.needed("high_freq_factor")?,
                    original_max_positions: original()?,
                }
            }
            "longrope" => {
                known.extend(["factor", "attention_factor", "short_factor", "long_factor"]);
                let divisors = self.numbers("short_factor")?;
                if self.numbers("long_factor")? != divisors {
                    let expected = "the numbers of short_factor (others are not supported)";
                    return Err(self.error("long_factor", expected, self.get("long_factor").unwrap_or(&Value::Null)));
                }
                let original = original()?;
                let factor = match beside {
                    Some(_) => max_positions as f64 / original.max(1) as f64,
                    None => self.needed("factor")?,
                };
                let sharper = (1.0 + factor.ln() / (original as f64).ln()).sqrt();
                let implied = if factor <= 1.0 { 1.0 } else { sharper };
                let attention_factor = self.number("attention_factor")?.unwrap_or(implied);
                RopeScaling::LongRope { divisors, attention_factor }
            }
            other => return Err(self.error("rope_type", "default, linear, dynamic, yarn, llama3 or longrope", other)),
        };
        let neutral = |key: &str, value: &Value| {
            value.is_null() || NEUTRAL.iter().any(|&(name, neutral)| name == key && value.as_f64() == Some(neutral))
        };
        match self
            .dict
            .into_iter()
            .flatten()
            .find(|(key, value)| !known.contains(&key.as_str()) && !neutral(key, value))
        {
            Some((key, value)) => Err(self.error(key, &format!("no such key for {rope_type}"), value)),
            None => Ok((theta, scaling)),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| self.error(key, "a number", value)),
        }
    }

    fn numbers(&self, key: &str) -> Result<Vec<f32>> {
        let value = self.get(key).unwrap_or(&Value::Null);
        let number = |value: &Value| value.as_f64().map(|x| x as f32);
        let numbers = value.as_array().and_then(|values| values.iter().map(number).collect());
        numbers.ok_or_else(|| self.error(key, "a list of numbers", value))
    }

    /// Returns a number; zero counts as absent.
    fn positive(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.number(key)?.filter(|&number| number != 0.0))
    }

    fn needed(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.error(key, "a number", "none"))
    }

    fn error(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> Error {
        Error::config(format!("{}.{key}", self.key), expected, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_scaling_gives_it_back() {
        let third = 1.0 / 3.0;
        for (theta, scaling) in [
            (1e4, RopeScaling::Default),
            (1_000_000.0 + third, RopeScaling::Linear { factor: 4.0 + third }),
            (1e4, RopeScaling::Dynamic { factor: 2.0, max_positions: 64 }),
            (
                5e5,
                RopeScaling::Yarn {
                    factor: 4.0,
                    original_max_positions: 32,
                    attention_factor: Some(1.0 + third),
                    beta_fast: 31.0,
                    beta_slow: 1.5,
                    truncate: false,
                },
            ),
            (
                5e5,
                RopeScaling::Llama3 {
                    factor: 8.0,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_max_positions: 4096,
                },
            ),
            (1e4, RopeScaling::LongRope { divisors: vec![1.0, 1.1, 7.3], attention_factor: 1.19 }),
        ] {
            let dict = to_json(theta, &scaling);
            let keys = RopeKeys {
                theta: None,
                scaling: Some(&dict),
                parameters: None,
                max_positions: 64,
                original_max_positions: None,
                partial: false,
            };
            assert_eq!(keys.read().unwrap(), (theta, scaling));
        }
    }
}
