//! The folder of a [`SentenceEncoder`]: `modules.json` and a subfolder per module.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::{Pooling, SentenceEncoder, Step};
use crate::checkpoint::{Checkpoint, WEIGHTS, save_pretrained, write_json, write_tensors};
use crate::error::{Error, Result};
use crate::models::encoder::TextEncoder;
use crate::nn::{Dropout, LayerNorm, Linear};
use crate::ops::Activation;
use crate::text::Tokenizer;

impl SentenceEncoder {
    /// Opens a `sentence-transformers` folder, or a folder with just an encoder.
    ///
    /// # Errors
    /// [`Error::Config`] for an unsupported module or option. Otherwise same as
    /// [`TextEncoder::open`] and [`Tokenizer::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let modules = read_modules(folder)?;
        let mut body = folder.to_path_buf();
        let (mut pooling, mut steps, mut width) = (Vec::new(), Vec::new(), 0);
        let (mut encoder, mut include_prompt) = (None, true);
        for (i, (kind, path)) in modules.iter().enumerate() {
            let expected = match (i, &pooling[..]) {
                (0, _) => kind == "Transformer",
                (1, _) => kind == "Pooling",
                _ => ["Dense", "Normalize", "LayerNorm", "Dropout"].contains(&kind.as_str()),
            };
            if !expected {
                let order = "Transformer, then Pooling, then Dense, LayerNorm, Dropout and Normalize";
                return Err(Error::config("modules.json", order, format_args!("{kind} at index {i}")));
            }
            match kind.as_str() {
                "Transformer" => {
                    body = path.clone();
                    let model = TextEncoder::open(path)?;
                    width = model.config.hidden_size();
                    encoder = Some(model);
                }
                "Pooling" => {
                    (pooling, include_prompt) = read_pooling(path, width)?;
                    width *= pooling.len();
                }
                "Dense" => {
                    let (dense, activation) = read_dense(path, width)?;
                    width = dense.weight.shape()[0];
                    steps.push(Step::Dense(Box::new(dense), activation));
                }
                "LayerNorm" => steps.push(Step::Norm(Box::new(read_norm(path, width)?))),
                "Dropout" => {
                    let config = read_json(&path.join("config.json"))?.unwrap_or_default();
                    let p = config.get("dropout").and_then(Value::as_f64).unwrap_or(0.2);
                    steps.push(Step::Dropout(Dropout::new(p as f32)));
                }
                _ => {
                    let config = read_json(&path.join("config.json"))?.unwrap_or_default();
                    refuse(&config, "module_input_name", &"sentence_embedding".into())?;
                    steps.push(Step::Normalize);
                }
            }
        }
        let (Some(encoder), false) = (encoder, pooling.is_empty()) else {
            return Err(Error::config(
                "modules.json",
                "a Transformer and a Pooling module",
                format_args!("{}", modules.len()),
            ));
        };
        let settings = read_json(&body.join(SETTINGS))?.unwrap_or_default();
        let own = encoder.config.max_seq_len();
        only(SETTINGS, &settings, SETTINGS_KEYS)?;
        refuse(&settings, "transformer_task", &"feature-extraction".into())?;
        refuse(&settings, "module_output_name", &"token_embeddings".into())?;
        let (prompts, default_prompt) = read_prompts(folder)?;
        let tokenizer = Tokenizer::open(&body)?;
        let max_seq_len = settings.get("max_seq_length").and_then(Value::as_u64);
        let max_seq_len = max_seq_len.and_then(|len| usize::try_from(len).ok());
        let max_seq_len = max_seq_len.or(tokenizer.model_max_length()).unwrap_or(own);
        Ok(Self {
            include_prompt,
            steps,
            prompts,
            default_prompt,
            lower_case: settings.get("do_lower_case") == Some(&Value::Bool(true)),
            dimensions: width,
            ..Self::new(encoder, tokenizer, &pooling)?.max_seq_len(max_seq_len)
        })
    }

    /// Saves a folder that `sentence-transformers` and [`SentenceEncoder::open`] can open.
    ///
    /// # Errors
    /// [`Error::Argument`] if vectors are truncated, which the format cannot store; [`Error::Io`]
    /// if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let width = self.width();
        if self.dimensions < width {
            let expected = format!("{width}, as the format cannot store truncated dimensions");
            return Err(Error::argument("dimensions", expected, self.dimensions));
        }
        save_pretrained(folder, &self.encoder)?;
        self.tokenizer.save_folder(folder)?;
        let settings = json!({ "max_seq_length": self.max_seq_len, "do_lower_case": self.lower_case });
        write_json(folder.join(SETTINGS), &settings)?;
        let prompts: serde_json::Map<String, Value> =
            self.prompts.iter().map(|(name, prompt)| (name.clone(), json!(prompt))).collect();
        let default = self.prompts.iter().find(|(_, prompt)| Some(prompt) == self.default_prompt.as_ref());
        let default = default.map(|(name, _)| name);
        write_json(folder.join(PROMPTS), &json!({ "prompts": prompts, "default_prompt_name": default }))?;

        let mut modules = vec![("Transformer", String::new())];
        let mut pooling = json!({ "word_embedding_dimension": self.encoder.config.hidden_size() });
        pooling["include_prompt"] = self.include_prompt.into();
        // The older keys imply an order; any other order needs the names.
        let place = |way: &Pooling| Pooling::NAMES.iter().position(|(.., known)| known == way);
        if self.pooling.is_sorted_by(|a, b| place(a) < place(b)) {
            for (key, _, way) in Pooling::NAMES {
                pooling[key] = self.pooling.contains(&way).into();
            }
        } else {
            let name = |way| Pooling::NAMES.iter().find(|(.., known)| known == way).map(|&(_, name, _)| name);
            pooling["pooling_mode"] = self.pooling.iter().map(name).collect();
        }
        let mut module = |kind: &'static str| {
            let name = format!("{}_{kind}", modules.len());
            let path = folder.join(&name);
            modules.push((kind, name));
            std::fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
            Ok::<_, Error>(path)
        };
        write_json(module("Pooling")?.join("config.json"), &pooling)?;
        for step in &self.steps {
            match step {
                Step::Dense(dense, activation) => save_dense(&module("Dense")?, dense, *activation)?,
                Step::Norm(norm) => save_norm(&module("LayerNorm")?, norm)?,
                Step::Dropout(dropout) => {
                    write_json(module("Dropout")?.join("config.json"), &json!({ "dropout": dropout.p }))?;
                }
                Step::Normalize => drop(module("Normalize")?),
            }
        }
        if self.normalize && !matches!(self.steps.last(), Some(Step::Normalize)) {
            module("Normalize")?;
        }
        let entry = |(i, (kind, path)): (usize, &(&str, String))| {
            let kind = format!("sentence_transformers.models.{kind}");
            json!({ "idx": i, "name": i.to_string(), "path": path, "type": kind })
        };
        write_json(folder.join(MODULES), &modules.iter().enumerate().map(entry).collect())
    }
}

const MODULES: &str = "modules.json";
const SETTINGS: &str = "sentence_bert_config.json";
const PROMPTS: &str = "config_sentence_transformers.json";
/// Keys of [`SETTINGS`] that are used, must have a neutral value, or only concern loading in
/// Python.
const SETTINGS_KEYS: &[&str] = &[
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "module_output_name",
    "modality_config",
    "method",
    "processing_kwargs",
    "unpad_inputs",
    "model_args",
    "tokenizer_args",
    "config_args",
];
/// The same for [`PROMPTS`]. The similarity function is up to the caller.
const PROMPTS_KEYS: &[&str] = &["prompts", "default_prompt_name", "similarity_fn_name", "model_type"];

fn read_json(path: &Path) -> Result<Option<Value>> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::format(path, e.to_string())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(path, e)),
    }
}

/// Rejects keys that are not in the list. A listed key may end in `*`; keys that start with `_` are
/// ignored.
fn only(file: &str, config: &Value, known: &[&str]) -> Result<()> {
    let is_known = |key: &str| {
        let fits = |known: &&str| known.strip_suffix('*').map_or(key == *known, |start| key.starts_with(start));
        key.starts_with('_') || known.iter().any(fits)
    };
    match config.as_object().into_iter().flatten().find(|(key, _)| !is_known(key)) {
        Some((key, value)) => Err(Error::config(key, format!("no such key in {file} (it is not supported)"), value)),
        None => Ok(()),
    }
}

/// Returns the type and folder of each module.
fn read_modules(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let file = folder.join(MODULES);
    let Some(json) = read_json(&file)? else {
        return Ok(vec![("Transformer".into(), folder.into()), ("Pooling".into(), folder.join("1_Pooling"))]);
    };
    let wrong = || Error::format(&file, "expected a list of modules with `type` and `path`");
    let list = json.as_array().ok_or_else(wrong)?;
    let module = |entry: &Value| {
        only(MODULES, entry, &["idx", "name", "path", "type", "kwargs"])?;
        let (kind, path) = (entry["type"].as_str().ok_or_else(wrong)?, entry["path"].as_str().ok_or_else(wrong)?);
        // A path could point anywhere in the file system.
        if Path::new(path).components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(Error::format(&file, format!("expected the name of a subfolder, found `{path}`")));
        }
        let kind = kind.rsplit('.').next().unwrap_or_default().to_string();
        Ok((kind, if path.is_empty() { folder.to_path_buf() } else { folder.join(path) }))
    };
    list.iter().map(module).collect()
}

/// Returns the pooling modes, and whether the prompt's tokens are pooled.
fn read_pooling(folder: &Path, width: usize) -> Result<(Vec<Pooling>, bool)> {
    let Some(config) = read_json(&folder.join("config.json"))? else { return Ok((vec![Pooling::Mean], true)) };
    only(
        "the pooling's config.json",
        &config,
        &["word_embedding_dimension", "embedding_dimension", "include_prompt", "pooling_mode*"],
    )?;
    for key in ["word_embedding_dimension", "embedding_dimension"] {
        if let Some(found) = config.get(key).filter(|found| found.as_u64() != Some(width as u64)) {
            return Err(Error::config(key, width.to_string(), found));
        }
    }
    let include_prompt = match config.get("include_prompt") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(included)) => *included,
        Some(found) => return Err(Error::config("include_prompt", "true or false", found)),
    };
    let known = "a supported pooling mode";
    if let Some(mode) = config.get("pooling_mode") {
        let modes = mode.as_array().map_or(std::slice::from_ref(mode), Vec::as_slice);
        let named = |mode: &Value| Pooling::NAMES.iter().find(|(_, name, _)| mode == name).map(|&(.., way)| way);
        let chosen: Option<Vec<Pooling>> = modes.iter().map(named).collect();
        let chosen = chosen.filter(|chosen| !chosen.is_empty());
        return chosen.map(|chosen| (chosen, include_prompt)).ok_or_else(|| Error::config("pooling_mode", known, mode));
    }
    for (key, value) in config.as_object().into_iter().flatten() {
        let is_known = Pooling::NAMES.iter().any(|(known, ..)| known == key);
        if key.starts_with("pooling_mode") && !is_known && *value != Value::Bool(false) {
            return Err(Error::config(key, known, value));
        }
    }
    let on = |key: &str| config.get(key) == Some(&Value::Bool(true));
    let chosen: Vec<Pooling> = Pooling::NAMES.iter().filter(|(key, ..)| on(key)).map(|&(.., way)| way).collect();
    if chosen.is_empty() {
        return Err(Error::config("pooling_mode", "at least one pooling mode", "none"));
    }
    Ok((chosen, include_prompt))
}

/// Reads a LayerNorm module, whose parameters have the prefix `norm`.
fn read_norm(folder: &Path, width: usize) -> Result<LayerNorm> {
    let path = folder.join("config.json");
    let config =
        read_json(&path)?.ok_or_else(|| Error::format(&path, "the config of the LayerNorm module is missing"))?;
    if let Some(found) = config.get("dimension").filter(|found| found.as_u64() != Some(width as u64)) {
        return Err(Error::config("dimension", width.to_string(), found));
    }
    Checkpoint::open(folder)?.loader().load(|mut p| LayerNorm::init(width, NORM_EPS, p.at("norm")))
}

/// PyTorch's default epsilon; the folder does not store one.
const NORM_EPS: f32 = 1e-5;

fn save_norm(folder: &Path, norm: &LayerNorm) -> Result<()> {
    write_json(folder.join("config.json"), &json!({ "dimension": norm.weight.shape()[0] }))?;
    let bias = norm.bias.as_ref().map(|bias| ("norm.bias", bias.tensor()));
    let tensors = [("norm.weight", norm.weight.tensor())].into_iter().chain(bias);
    write_tensors(folder.join(WEIGHTS), tensors, None)
}

/// Rejects an option that has any other value than the one without effect.
fn refuse(config: &Value, key: &str, neutral: &Value) -> Result<()> {
    match config.get(key) {
        Some(found) if found != neutral && !found.is_null() => Err(Error::config(key, neutral.to_string(), found)),
        _ => Ok(()),
    }
}

/// PyTorch class names of activations in a dense module.
const ACTIVATIONS: [(&str, Option<Activation>); 6] = [
    ("torch.nn.modules.linear.Identity", None),
    ("torch.nn.modules.activation.Tanh", Some(Activation::Tanh)),
    ("torch.nn.modules.activation.ReLU", Some(Activation::Relu)),
    ("torch.nn.modules.activation.GELU", Some(Activation::Gelu)),
    ("torch.nn.modules.activation.SiLU", Some(Activation::Silu)),
    ("torch.nn.modules.activation.Sigmoid", Some(Activation::Sigmoid)),
];

fn save_dense(folder: &Path, dense: &Linear, activation: Option<Activation>) -> Result<()> {
    let class = ACTIVATIONS.iter().find(|(_, known)| *known == activation).map(|(class, _)| class);
    let (n_out, n_in) = (dense.weight.shape()[0], dense.weight.shape()[1]);
    let config = json!({
        "in_features": n_in, "out_features": n_out, "bias": dense.bias.is_some(), "activation_function": class,
    });
    write_json(folder.join("config.json"), &config)?;
    let bias = dense.bias.as_ref().map(|bias| ("linear.bias", bias.tensor()));
    let tensors = [("linear.weight", dense.weight.tensor())].into_iter().chain(bias);
    write_tensors(folder.join(WEIGHTS), tensors, None)
}

fn read_dense(folder: &Path, width: usize) -> Result<(Linear, Option<Activation>)> {
    let path = folder.join("config.json");
    let config = read_json(&path)?.ok_or_else(|| Error::format(&path, "the config of the Dense module is missing"))?;
    refuse(&config, "use_residual", &false.into())?;
    refuse(&config, "module_input_name", &"sentence_embedding".into())?;
    let size = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (n_in, n_out) = (size("in_features"), size("out_features"));
    if n_in != width as u64 {
        return Err(Error::config("in_features", width.to_string(), n_in));
    }
    if !(1..1 << 24).contains(&n_out) {
        return Err(Error::config("out_features", "a number from 1 to 2^24 - 1", n_out));
    }
    let name = config.get("activation_function").and_then(Value::as_str).unwrap_or("Tanh");
    let name = name.rsplit('.').next().unwrap_or_default();
    let Some(&(_, activation)) = ACTIVATIONS.iter().find(|(class, _)| class.ends_with(&format!(".{name}"))) else {
        return Err(Error::config("activation_function", "Identity, Tanh, ReLU, GELU, SiLU or Sigmoid", name));
    };
    let bias = config.get("bias") != Some(&Value::Bool(false));
    let checkpoint = Checkpoint::open(folder)?;
    let dense = checkpoint.loader().load(|mut p| Linear::init(width, n_out as usize, bias, p.at("linear")))?;
    Ok((dense, activation))
}

/// Prompt texts by name.
type Prompts = Vec<(String, String)>;

/// Returns the prompts by name, and the text of the default prompt.
fn read_prompts(folder: &Path) -> Result<(Prompts, Option<String>)> {
    let config = read_json(&folder.join(PROMPTS))?.unwrap_or_default();
    only(PROMPTS, &config, PROMPTS_KEYS)?;
    let prompts: Prompts = config
        .get("prompts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, prompt)| Some((name.clone(), prompt.as_str()?.to_string())))
        .collect();
    let Some(name) = config.get("default_prompt_name").and_then(Value::as_str) else { return Ok((prompts, None)) };
    match prompts.iter().find(|(known, _)| known == name) {
        Some((_, prompt)) => Ok((prompts.clone(), Some(prompt.clone()))),
        None => Err(Error::config("default_prompt_name", "the name of a prompt", name)),
    }
}
