//! Rotary position embeddings in the metadata.
//!
//! llama.cpp has keys for linear scaling and YaRN, and a tensor of frequency divisors for other
//! scalings. These store less than a `config.json`: numbers as f32, and divisors without the
//! parameters that they are computed from. So files written by this crate also store the exact
//! parameters under a key that other programs ignore. It is used if it agrees with the other keys.

use serde_json::{Map, Value as Json, json};

use super::keys::{KeyWriter, Keys};
use super::{GgufFile, TensorType, Value};
use crate::checkpoint::rope_keys::{self, RopeKeys};
use crate::error::{Error, Result};
use crate::nn::rotary::yarn_attention_factor;
use crate::nn::{RopeScaling, RotaryPositions};

/// Divisors of the rotary frequencies, one per pair of columns: the scaling of Llama 3.1 and later.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";
/// `rope_scaling` of a `config.json` with `rope_theta`, as JSON.
const EXACT: &str = "loquat.rope_scaling";
/// Maximum relative difference of frequencies that count as equal.
const TOLERANCE: f32 = 1e-4;

/// Returns `rope_scaling` for a `config.json` that has the other keys already; `width` is the
/// number of rotated columns per head.
///
/// # Errors
/// [`Error::Config`] for an unsupported scaling; [`Error::Format`] if this crate's key contradicts
/// the other keys.
pub(crate) fn read(keys: &Keys<'_>, config: &Json, width: usize) -> Result<Option<Map<String, Json>>> {
    let theta = keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0);
    let standard = standard(keys, theta, width)?;
    let Some(text) = keys.file.optional(EXACT, "a string", |v| v.as_str())? else { return Ok(standard) };
    let wrong =
        |expected: &str| Error::format(keys.file.path(), format!("`{EXACT}`: expected {expected}, found {text}"));
    let Ok(Json::Object(exact)) = serde_json::from_str(text) else { return Err(wrong("a JSON object")) };
    let turns = |scaling: Option<&Map<String, Json>>| {
        let (theta, scaling) = RopeKeys { scaling, theta: Some(theta), ..RopeKeys::of(config) }.read()?;
        RotaryPositions::new(width, theta, scaling)
    };
    let (ours, theirs) = (turns(Some(&exact))?, turns(standard.as_ref())?);
    let ((ours, our_scale), (theirs, their_scale)) = (ours.frequencies(), theirs.frequencies());
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * b.abs();
    if ours.iter().zip(theirs).all(near) && near((&our_scale, &their_scale)) {
        Ok(Some(exact))
    } else {
        Err(wrong("the same scaling as the other keys"))
    }
}

/// Reads llama.cpp's keys.
fn standard(keys: &Keys<'_>, theta: f64, width: usize) -> Result<Option<Map<String, Json>>> {
    let object = |json: Json| match json {
        Json::Object(object) => Some(object),
        _ => None,
    };
    let type_key = keys.key("rope.scaling.type");
    let kind = keys.file.optional(&type_key, "a string", |v| v.as_str())?;
    let attn_factor = keys.optional_number("rope.scaling.attn_factor")?.filter(|&factor| factor != 1.0);
    if let Some(found) = attn_factor.filter(|_| kind != Some("yarn")) {
        return Err(Error::config(keys.key("rope.scaling.attn_factor"), "1 without YaRN", found));
    }
    if let Some(divisors) = divisors(keys.file)? {
        if let Some(other) = kind.filter(|&kind| kind != "none") {
            return Err(Error::config(&type_key, format!("no scaling type with the tensor `{ROPE_FREQS}`"), other));
        }
        return from_divisors(&divisors, theta, width).map(object);
    }
    let factor = match keys.optional_number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.optional_number("rope.scale_linear")?,
    };
    let need =
        |what: Option<f64>| what.ok_or_else(|| Error::config(keys.key("rope.scaling.factor"), "a number", "none"));
    match kind {
        None if factor.is_none_or(|factor| factor == 1.0) => Ok(None),
        Some("none") => Ok(None),
        None | Some("linear") => Ok(object(json!({ "rope_type": "linear", "factor": need(factor)? }))),
        Some("yarn") => {
            let factor = need(factor)?;
            let mut scaling = json!({ "rope_type": "yarn", "factor": factor });
            if let Some(original) = keys.optional_size("rope.scaling.original_context_length")? {
                scaling["original_max_position_embeddings"] = original.into();
            }
            for (name, key) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                if let Some(beta) = keys.optional_number(&format!("rope.scaling.{name}"))? {
                    scaling[key] = beta.into();
                }
            }
            // In this case it multiplies YaRN's own factor.
            if let Some(times) = attn_factor {
                scaling["attention_factor"] = (times * yarn_attention_factor(factor, 1.0)).into();
            }
            Ok(object(scaling))
        }
        Some(other) => Err(Error::config(&type_key, "none, linear or yarn", other)),
    }
}

fn divisors(file: &GgufFile) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = file.tensor(ROPE_FREQS) else { return Ok(None) };
    if tensor.tensor_type() != TensorType::F32 {
        return Err(Error::config(ROPE_FREQS, "F32 numbers", tensor.tensor_type()));
    }
    Ok(Some(tensor.bytes().as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect()))
}

/// Published Llama models differ only in `factor`; other divisors are stored as they are.
fn from_divisors(divisors: &[f32], theta: f64, width: usize) -> Result<Json> {
    if width != 2 * divisors.len() {
        return Err(Error::config(ROPE_FREQS, "one divisor per pair of rotated columns", divisors.len()));
    }
    let published = RopeScaling::Llama3 {
        factor: divisors.iter().fold(0f32, |max, &x| max.max(x)).into(),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 8192,
    };
    let expected = divisors_of(theta, 2 * divisors.len(), &published);
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE * b;
    let scaling = match expected {
        Ok(expected) if divisors.iter().zip(&expected).all(near) => published,
        _ => RopeScaling::LongRope { divisors: divisors.into(), attention_factor: 1.0 },
    };
    let mut json = rope_keys::to_json(theta, &scaling);
    json.remove("rope_theta");
    Ok(Json::Object(json))
}

/// Returns the divisors of the frequencies under a scaling.
fn divisors_of(theta: f64, width: usize, scaling: &RopeScaling) -> Result<Vec<f32>> {
    let plain = RotaryPositions::new(width, theta, RopeScaling::Default)?;
    let scaled = RotaryPositions::new(width, theta, scaling.clone())?;
    Ok(plain.frequencies().0.iter().zip(scaled.frequencies().0).map(|(plain, scaled)| plain / scaled).collect())
}

/// Writes the rotary position embeddings of a `config.json`; `width` is the number of rotated
/// columns per head.
///
/// # Errors
/// [`Error::Config`] for a setting that GGUF cannot represent.
pub(crate) fn write(keys: &mut KeyWriter<'_, '_>, rope: &RopeKeys<'_>, width: usize) -> Result<()> {
    let (theta, scaling) = rope.read()?;
    let number = |keys: &mut KeyWriter<'_, '_>, name: &str, x: f64| keys.set(name, Value::F32(x as f32));
    number(keys, "rope.freq_base", theta)?;
    match &scaling {
        RopeScaling::Default => {}
        RopeScaling::Linear { factor } => {
            keys.set("rope.scaling.type", Value::String("linear"))?;
            number(keys, "rope.scaling.factor", *factor)?;
        }
        &RopeScaling::Yarn { factor, original_max_positions, attention_factor, beta_fast, beta_slow, truncate } => {
            if !truncate {
                return Err(Error::config(
                    "rope_scaling.truncate",
                    "true (GGUF cannot represent other values)",
                    truncate,
                ));
            }
            let Ok(original) = u32::try_from(original_max_positions) else {
                let expected = "a whole number below 2^32";
                return Err(Error::config(
                    format!("rope_scaling.{}", rope_keys::ORIGINAL_POSITIONS),
                    expected,
                    original_max_positions,
                ));
            };
            keys.set("rope.scaling.type", Value::String("yarn"))?;
            number(keys, "rope.scaling.factor", factor)?;
            keys.set("rope.scaling.original_context_length", Value::U32(original))?;
            number(keys, "rope.scaling.yarn_beta_fast", beta_fast)?;
            number(keys, "rope.scaling.yarn_beta_slow", beta_slow)?;
            if let Some(attention_factor) = attention_factor {
                number(keys, "rope.scaling.attn_factor", attention_factor / yarn_attention_factor(factor, 1.0))?;
            }
        }
        RopeScaling::LongRope { attention_factor, .. } if *attention_factor != 1.0 => {
            let expected = "1 (GGUF cannot represent other values without YaRN)";
            return Err(Error::config("rope_scaling.attention_factor", expected, attention_factor));
        }
        RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. } => {
            let divisors = match &scaling {
                RopeScaling::LongRope { divisors, .. } => divisors.clone(),
                _ => divisors_of(theta, width, &scaling)?,
            };
            keys.writer.tensor_f32(ROPE_FREQS, &[divisors.len()], divisors)?;
        }
        RopeScaling::Dynamic { .. } => {
            let expected = "default, linear, yarn, llama3 or longrope (GGUF cannot represent other types)";
            return Err(Error::config("rope_scaling.rope_type", expected, "dynamic"));
        }
    }
    if scaling != RopeScaling::Default || Value::F32(theta as f32).as_f64() != Some(theta) {
        let exact = Json::Object(rope_keys::to_json(theta, &scaling)).to_string();
        keys.writer.set(EXACT, Value::String(&exact))?;
    }
    Ok(())
}
