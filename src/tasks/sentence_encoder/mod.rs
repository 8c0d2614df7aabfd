//! Sentence vectors, from folders of `sentence-transformers`.
//!
//! `modules.json` lists the steps: an encoder, pooling of its hidden states, and optional dense
//! layers, norms, dropout and normalisation (Reimers and Gurevych, "Sentence-BERT", 2019,
//! <https://arxiv.org/abs/1908.10084>). A folder without that file is read as an encoder with mean
//! pooling.

mod folder;

use ndarray::Array2;

use super::{fit, ragged};
use crate::error::{Error, Result};
use crate::models::encoder::TextEncoder;
use crate::nn::{Dropout, LayerNorm, Linear};
use crate::ops::{Activation, Precision, with_precision};
use crate::tensor::{Tensor, no_grad};
use crate::text::{EncodeOptions, Tokenizer, Truncation};

/// How the hidden states of a text's tokens are pooled to one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// Hidden state of the first token.
    Cls,
    /// Maximum of each column.
    Max,
    /// Mean over tokens.
    Mean,
    /// Sum over tokens, divided by the square root of their number.
    MeanSqrtLen,
    /// Weighted mean; token `i` (counted from 1) has weight `i`.
    WeightedMean,
    /// Hidden state of the last token.
    Last,
}

impl Pooling {
    /// In the order in which the results are concatenated: the key up to version 5 of
    /// `sentence-transformers`, the name since, the mode.
    const NAMES: [(&str, &str, Pooling); 6] = [
        ("pooling_mode_cls_token", "cls", Pooling::Cls),
        ("pooling_mode_max_tokens", "max", Pooling::Max),
        ("pooling_mode_mean_tokens", "mean", Pooling::Mean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Pooling::MeanSqrtLen),
        ("pooling_mode_weightedmean_tokens", "weightedmean", Pooling::WeightedMean),
        ("pooling_mode_lasttoken", "lasttoken", Pooling::Last),
    ];

    /// Pools `tokens: [tokens, width]` to `out: [width]`. The first `skip` tokens are left out,
    /// except for [`Pooling::Cls`]; weights are those of the positions in the whole text, as in
    /// `sentence-transformers`.
    fn pool(self, tokens: &[f32], skip: usize, out: &mut [f32]) {
        let width = out.len();
        let rows = || tokens.chunks_exact(width).enumerate().skip(skip);
        let (n, skipped) = ((tokens.len() / width) as f32, skip as f32);
        let count = n - skipped;
        let mut sum = |weight: &dyn Fn(usize) -> f32, divisor: f32| {
            out.fill(0.0);
            for (i, row) in rows() {
                let weight = weight(i);
                out.iter_mut().zip(row).for_each(|(y, x)| *y += weight * x);
            }
            out.iter_mut().for_each(|y| *y /= divisor);
        };
        match self {
            Pooling::Mean => sum(&|_| 1.0, count),
            Pooling::MeanSqrtLen => sum(&|_| 1.0, count.sqrt()),
            Pooling::WeightedMean => sum(&|i| (i + 1) as f32, (n * (n + 1.0) - skipped * (skipped + 1.0)) / 2.0),
            Pooling::Cls => out.copy_from_slice(&tokens[..width]),
            Pooling::Last => out.copy_from_slice(&tokens[tokens.len() - width..]),
            Pooling::Max => {
                out.fill(f32::NEG_INFINITY);
                rows().for_each(|(_, row)| out.iter_mut().zip(row).for_each(|(y, x)| *y = y.max(*x)));
            }
        }
    }
}

/// A step after pooling.
#[derive(Clone, Debug)]
enum Step {
    Dense(Box<Linear>, Option<Activation>),
    Norm(Box<LayerNorm>),
    /// Identity at inference; kept for saving.
    Dropout(Dropout),
    Normalize,
}

/// A sentence encoder: converts texts to vectors. It can be shared between threads.
///
/// ```no_run
/// use loquat::SentenceEncoder;
///
/// let encoder = SentenceEncoder::open("models/all-MiniLM-L6-v2")?;
/// let vectors = encoder.encode(&["a cat sat", "a dog ran"])?; // [texts, dimensions]
/// assert_eq!(vectors.nrows(), 2);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// With an encoder in memory. Layers added with [`dense`](SentenceEncoder::dense) and
/// [`layer_norm`](SentenceEncoder::layer_norm) are applied after pooling, in the order of the
/// calls; [`save`](SentenceEncoder::save) saves all of it:
///
/// ```
/// use loquat::models::{EncoderConfig, TextEncoder, encoder::BertConfig};
/// use loquat::tasks::{Pooling, SentenceEncoder};
/// use loquat::text::TokenizerTrainer;
/// use loquat::Rng;
///
/// let texts = ["a cat sat", "a dog ran"];
/// let tokenizer = TokenizerTrainer::word_piece().vocab_size(60).train(texts)?;
/// let config = EncoderConfig::from(BertConfig::new(tokenizer.vocab_size(), 16, 1, 2, 32));
/// let encoder = TextEncoder::init(&config, false, &mut Rng::seed(1))?; // train it first
/// let encoder = SentenceEncoder::new(encoder, tokenizer, &[Pooling::Mean])?
///     .prompt("query", "search: ")
///     .normalize(true);
/// assert_eq!(encoder.encode(&["a cat ran", "a dog"])?.dim(), (2, 16));
/// assert_eq!(encoder.encode_with_prompt("query", &["a cat"])?.dim(), (1, 16));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct SentenceEncoder {
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    pooling: Vec<Pooling>,
    include_prompt: bool,
    steps: Vec<Step>,
    prompts: Vec<(String, String)>,
    default_prompt: Option<String>,
    lower_case: bool,
    max_seq_len: usize,
    dimensions: usize,
    normalize: bool,
    precision: Precision,
}

impl std::fmt::Debug for SentenceEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { encoder, pooling, dimensions, .. } = self;
        write!(f, "SentenceEncoder({encoder:?}, {pooling:?}, dimensions={dimensions})")
    }
}

impl SentenceEncoder {
    /// Creates a sentence encoder from an encoder, its tokenizer and the pooling modes, whose
    /// results are concatenated.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no pooling mode, or the tokenizer has more tokens than the
    /// encoder's embedding has rows.
    pub fn new(encoder: TextEncoder, tokenizer: Tokenizer, pooling: &[Pooling]) -> Result<Self> {
        fit::check_vocabulary(&encoder, &tokenizer)?;
        if pooling.is_empty() {
            return Err(Error::argument("pooling", "at least one mode", "none"));
        }
        let own = encoder.config.max_seq_len();
        Ok(Self {
            dimensions: encoder.config.hidden_size() * pooling.len(),
            max_seq_len: tokenizer.model_max_length().unwrap_or(own).min(own),
            encoder,
            tokenizer,
            pooling: pooling.to_vec(),
            include_prompt: true,
            steps: Vec::new(),
            prompts: Vec::new(),
            default_prompt: None,
            lower_case: false,
            normalize: false,
            precision: Precision::F32,
        })
    }

    /// Appends a linear layer with an optional activation to the steps after pooling. Call
    /// [`truncate_dimensions`](SentenceEncoder::truncate_dimensions) after it.
    ///
    /// # Errors
    /// [`Error::Argument`] if the input width of the layer differs from the width of the vectors.
    pub fn dense(mut self, layer: Linear, activation: Option<Activation>) -> Result<Self> {
        self.check_width("dense", layer.in_features())?;
        self.dimensions = layer.out_features();
        self.steps.push(Step::Dense(Box::new(layer), activation));
        Ok(self)
    }

    /// Appends a LayerNorm to the steps after pooling.
    ///
    /// # Errors
    /// [`Error::Argument`] if the width of the norm differs from the width of the vectors.
    pub fn layer_norm(mut self, norm: LayerNorm) -> Result<Self> {
        self.check_width("layer_norm", norm.weight.len())?;
        self.dimensions = self.width();
        self.steps.push(Step::Norm(Box::new(norm)));
        Ok(self)
    }

    /// Number of dimensions before truncation.
    fn width(&self) -> usize {
        let dense = self.steps.iter().rev().find_map(|step| match step {
            Step::Dense(dense, _) => Some(dense.out_features()),
            _ => None,
        });
        dense.unwrap_or(self.encoder.config.hidden_size() * self.pooling.len())
    }

    fn check_width(&self, layer: &str, found: usize) -> Result<()> {
        match self.width() {
            width if width == found => Ok(()),
            width => Err(Error::argument(layer, format!("an input of {width} columns, the vectors' width"), found)),
        }
    }

    /// Adds a prompt, or replaces the one of this name. See
    /// [`SentenceEncoder::encode_with_prompt`].
    #[must_use]
    pub fn prompt(mut self, name: &str, text: &str) -> Self {
        self.prompts.retain(|(known, _)| known != name);
        self.prompts.push((name.into(), text.into()));
        self
    }

    /// Sets the prompt that [`SentenceEncoder::encode`] prepends to each text.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no such prompt.
    pub fn default_prompt(mut self, name: &str) -> Result<Self> {
        self.default_prompt = Some(self.prompt_text(name)?.to_string());
        Ok(self)
    }

    /// Sets whether the tokens of a prompt are pooled with those of the text. Default: true.
    #[must_use]
    pub fn include_prompt(mut self, include: bool) -> Self {
        self.include_prompt = include;
        self
    }

    /// Sets whether texts are converted to lower case. Default: false.
    #[must_use]
    pub fn lower_case(mut self, lower_case: bool) -> Self {
        self.lower_case = lower_case;
        self
    }

    /// Truncates vectors to their first `dimensions`, for models trained for it (Kusupati et al.,
    /// "Matryoshka Representation Learning", 2022).
    ///
    /// # Errors
    /// [`Error::Argument`] for 0 or more than the model's dimensions.
    pub fn truncate_dimensions(mut self, dimensions: usize) -> Result<Self> {
        if !(1..=self.dimensions).contains(&dimensions) {
            let expected = format!("a number from 1 to {}, the model's dimensions", self.dimensions);
            return Err(Error::argument("dimensions", expected, dimensions));
        }
        self.dimensions = dimensions;
        Ok(self)
    }

    /// Scales vectors to length 1, after truncation. Default: only if the folder has a `Normalize`
    /// module.
    #[must_use]
    pub fn normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }

    /// Sets the largest number of tokens per text, special tokens included; at most the encoder's
    /// context length.
    #[must_use]
    pub fn max_seq_len(mut self, tokens: usize) -> Self {
        self.max_seq_len = tokens.min(self.encoder.config.max_seq_len());
        self
    }

    /// Sets the precision of matrix products. Default: [`Precision::F32`].
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Returns the number of dimensions of the vectors.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Returns the encoder.
    pub fn encoder(&self) -> &TextEncoder {
        &self.encoder
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Encodes texts as vectors, in the order of the texts. A vector has the same bits regardless
    /// of the rest of the batch.
    ///
    /// # Shapes
    /// Returns `[texts, dimensions]`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if a text cannot be encoded; [`Error::Argument`] if `max_seq_len` is
    /// smaller than the number of special tokens; [`Error::NotFinite`] if the model computes NaN.
    pub fn encode<T: AsRef<str>>(&self, texts: &[T]) -> Result<Array2<f32>> {
        self.encode_behind(self.default_prompt.as_deref().unwrap_or_default(), texts)
    }

    /// Encodes texts with the prompt `name` (`query`, `passage`, …) prepended to each.
    ///
    /// # Errors
    /// Same as [`SentenceEncoder::encode`]; [`Error::Argument`] if there is no prompt of that
    /// name.
    pub fn encode_with_prompt<T: AsRef<str>>(&self, name: &str, texts: &[T]) -> Result<Array2<f32>> {
        self.encode_behind(self.prompt_text(name)?, texts)
    }

    fn prompt_text(&self, name: &str) -> Result<&str> {
        match self.prompts.iter().find(|(known, _)| known == name) {
            Some((_, prompt)) => Ok(prompt),
            None => {
                let known: Vec<&str> = self.prompts.iter().map(|(known, _)| known.as_str()).collect();
                Err(Error::argument("prompt", format!("one of [{}]", known.join(", ")), name))
            }
        }
    }

    fn encode_behind<T: AsRef<str>>(&self, prompt: &str, texts: &[T]) -> Result<Array2<f32>> {
        let read = |text: &T| {
            let text = format!("{prompt}{}", text.as_ref());
            if self.lower_case { text.to_lowercase() } else { text }
        };
        let texts: Vec<String> = texts.iter().map(read).collect();
        let inputs: Vec<&str> = texts.iter().map(String::as_str).collect();
        let options = EncodeOptions::default().truncation(Truncation::new(self.max_seq_len));
        let encodings = self.tokenizer.encode_batch_with(&inputs, &options)?;
        let skip = self.tokens_of_prompt(prompt)?;
        if let Some(cut) = encodings.iter().find(|encoding| encoding.len() <= skip) {
            let expected = format!("more than the {skip} tokens of the prompt, which are not pooled");
            return Err(Error::argument("tokens of a text with its prompt", expected, cut.len()));
        }
        let width = self.encoder.config.hidden_size();
        let mut pooled = Tensor::zeros(&[texts.len(), width * self.pooling.len()]);
        with_precision(self.precision, || {
            let rows = pooled.make_mut();
            ragged::hidden_states(&self.encoder, &encodings, |i, hidden| {
                let row = &mut rows[i * width * self.pooling.len()..][..width * self.pooling.len()];
                for (pooling, out) in self.pooling.iter().zip(row.chunks_exact_mut(width)) {
                    pooling.pool(hidden.data(), skip, out);
                }
                Ok(())
            })
        })?;
        let mut y = pooled;
        for step in &self.steps {
            match step {
                Step::Dense(dense, activation) => {
                    y = no_grad(|| dense.forward(&y))?;
                    y = activation.map_or(y.clone(), |f| y.activate(f));
                }
                Step::Norm(norm) => y = no_grad(|| norm.forward(&y))?,
                Step::Dropout(_) => {}
                Step::Normalize => {
                    let width = y.shape()[1];
                    y.make_mut().chunks_exact_mut(width).for_each(to_unit);
                }
            }
        }
        let mut vectors: Array2<f32> = y.to_array()?;
        if let Some(((text, _), &found)) = vectors.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NotFinite { what: format!("vector of text {text}"), found: f64::from(found) });
        }
        if self.dimensions < vectors.ncols() {
            vectors = vectors.slice(ndarray::s![.., ..self.dimensions]).to_owned();
        }
        if self.normalize {
            vectors.rows_mut().into_iter().for_each(|mut row| {
                if let Some(row) = row.as_slice_mut() {
                    to_unit(row);
                }
            });
        }
        Ok(vectors)
    }

    /// Returns the number of leading tokens that belong to a prompt that is not pooled: the prompt
    /// with the special tokens before it, but not the one after it.
    fn tokens_of_prompt(&self, prompt: &str) -> Result<usize> {
        if self.include_prompt || prompt.is_empty() {
            return Ok(0);
        }
        let prompt = if self.lower_case { prompt.to_lowercase() } else { prompt.to_string() };
        let encoding = self.tokenizer.encode(&prompt)?;
        let closed = encoding.special_tokens_mask.last() == Some(&1);
        Ok(encoding.len() - usize::from(closed))
    }
}

/// Scales `x` to length 1, like `torch.nn.functional.normalize`; zeros remain zeros.
fn to_unit(x: &mut [f32]) {
    let squares: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let inverse = 1.0 / squares.sqrt().max(1e-12);
    x.iter_mut().for_each(|x| *x = (f64::from(*x) * inverse) as f32);
}
