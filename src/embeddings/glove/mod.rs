//! GloVe: global vectors for word representation (Pennington, Socher and Manning 2014,
//! <https://nlp.stanford.edu/pubs/glove.pdf>; agrees in its loss and its updates with the authors'
//! `glove.c`).

mod checkpoint;
mod cooccurrence;
mod fit;
mod records;
mod state;
mod table;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub use table::Cooccurrences;

use serde::{Deserialize, Serialize};

use super::WordVectors;
use super::training::run::{Observer, Progress};
use super::training::settings::shared_settings;
use super::training::text::TrainingText;
use super::training::vocabulary::{Keep, TrainingVocabulary};
use super::training::{in_pool, lock};
use super::word_vectors::Rows;
use crate::{Error, Result};
use cooccurrence::Counting;
use records::TempFolder;

/// A builder that trains word vectors by GloVe. Settings are checked when training starts.
///
/// Co-occurrences of words are counted (1/distance each), and vectors are fitted to their
/// logarithms by minimising
///
/// ```text
/// Σ_ij f(X_ij) (w_i · c_j + b_i + b_j − ln X_ij)²        f(x) = min(1, (x / x_max)^alpha)
/// ```
///
/// with AdaGrad, in random order; biases have a learning rate of 1. The vector of a word is w + c.
/// Counting and shuffling stay within [`Glove::memory_mb`] and use temporary files for the rest.
///
/// # Examples
/// ```
/// use loquat::embeddings::{Glove, TrainingText};
///
/// let stories = || (0..300).map(|i| {
///     let (who, what) = [("cat", "milk"), ("dog", "bones")][i % 2];
///     [who, "likes", what, "and", who, "eats", what].map(String::from).to_vec()
/// });
/// let vectors = Glove::new().dim(10).window(4).train(&TrainingText::sentences(stories))?;
/// assert!(vectors.similarity("cat", "milk")? > vectors.similarity("cat", "bones")?);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Glove {
    dim: usize,
    window: usize,
    symmetric: bool,
    min_count: u64,
    max_words: Option<usize>,
    max_counted: usize,
    x_max: f32,
    alpha: f32,
    epochs: usize,
    lr: f32,
    memory: usize,
    seed: u64,
    #[serde(skip)]
    threads: Option<usize>,
    #[serde(skip)]
    temporary: Option<PathBuf>,
    #[serde(skip)]
    checkpoint: Option<(PathBuf, Duration)>,
}

impl Default for Glove {
    fn default() -> Self {
        Self::new()
    }
}

impl Glove {
    shared_settings!();

    /// Returns the settings of the paper: 100 dimensions, a window of 15 words to each side, words
    /// that occur at least 5 times, `x_max` 100, `alpha` 0.75, learning rate 0.05, 25 epochs; 1024
    /// MB of memory.
    pub fn new() -> Self {
        Glove {
            dim: 100,
            window: 15,
            symmetric: true,
            min_count: 5,
            max_words: None,
            max_counted: Keep::COUNTED,
            x_max: 100.0,
            alpha: 0.75,
            epochs: 25,
            lr: 0.05,
            memory: 1024 << 20,
            seed: 1,
            threads: None,
            temporary: None,
            checkpoint: None,
        }
    }

    /// Sets the largest distance between co-occurring words. Windows do not cross the ends of
    /// sentences, so short lines make wide windows ineffective. Default: 15.
    pub fn window(mut self, words: usize) -> Self {
        self.window = words;
        self
    }

    /// Counts only the words before each word, not those after it.
    pub fn left_window(mut self) -> Self {
        self.symmetric = false;
        self
    }

    /// Sets the co-occurrence above which pairs have full weight. Default: 100. Use less for small
    /// texts: 10 is usual, and with ten million words 2 gives better similarity.
    pub fn x_max(mut self, x: f32) -> Self {
        self.x_max = x;
        self
    }

    /// Sets the exponent of the weight of rarer pairs. Default: 0.75.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }

    /// Sets the number of passes over all pairs. Default: 25.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets AdaGrad's learning rate of the vectors; that of the biases is 1. Default: 0.05.
    pub fn lr(mut self, lr: f32) -> Self {
        self.lr = lr;
        self
    }

    /// Sets the memory for counting and shuffling in megabytes (2^20 bytes), including the
    /// vocabulary; at least 16. Fitting uses additional memory for its rows, words × (`dim` + 1) ×
    /// 16 bytes, and at least a batch of 18 MB. Default: 1024.
    pub fn memory_mb(mut self, megabytes: usize) -> Self {
        self.memory = megabytes.saturating_mul(1 << 20);
        self
    }

    /// Sets the seed of all random choices: the same seed gives the same bits, at any number of
    /// threads. Default: 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the folder of temporary files. Default: that of the operating system.
    pub fn temporary_folder(mut self, path: impl AsRef<Path>) -> Self {
        self.temporary = Some(path.as_ref().into());
        self
    }

    /// Counts co-occurrences and trains on a text.
    ///
    /// # Errors
    /// Same as [`Glove::count`] and [`Glove::fit`].
    pub fn train(&self, text: &TrainingText<'_>) -> Result<WordVectors> {
        let observer = &mut |_: &Progress| ControlFlow::Continue(());
        let counts = self.count(text, observer)?;
        Ok(self.fit(&counts, observer)?.into_vectors())
    }

    /// Counts the co-occurrences of a text. `observer` sees epoch 0; stopping is an error.
    ///
    /// # Errors
    /// [`Error::Argument`] with the name of a setting that is out of range; [`Error::Io`] and
    /// [`Error::Format`] from reading the text or writing temporary files, which are removed.
    pub fn count(&self, text: &TrainingText<'_>, observer: &mut dyn Observer) -> Result<Cooccurrences> {
        self.check()?;
        in_pool(self.threads, || {
            let vocabulary = self.vocabulary(text)?;
            let folder = self.folder()?;
            let counting = Counting { window: self.window, symmetric: self.symmetric, memory: self.memory };
            let report = Mutex::new((observer, Instant::now()));
            let began = Instant::now();
            let report = |bytes: u64| {
                let mut report = lock(&report);
                if report.1.elapsed() < Duration::from_millis(100) {
                    return true;
                }
                report.1 = Instant::now();
                let part = bytes as f64 / vocabulary.text_bytes.max(1) as f64;
                let words = (vocabulary.text_words as f64 * part) as u64;
                let progress = Progress::counting(words, vocabulary.text_words, began.elapsed());
                report.0.progress(&progress).is_continue()
            };
            let records = cooccurrence::count(text, &vocabulary, counting, &folder, &report)?;
            let records = records.ok_or_else(|| Error::argument("observer", "`Continue` while counting", "`Break`"))?;
            if records.len() == 0 {
                return Err(super::training::text::empty(text, "expected words that occur together, found none"));
            }
            Cooccurrences::new(vocabulary, records, self.window, self.symmetric)
        })
    }

    /// Fits vectors to co-occurrences. [`Progress`] counts pairs in place of words.
    ///
    /// # Errors
    /// [`Error::Argument`] with the name of a setting that is out of range; [`Error::Io`] from
    /// temporary files or a checkpoint; [`Error::NotFinite`] with the epoch, if training diverges
    /// because the learning rate is too high. After an error the checkpoint file is the last one
    /// that was written.
    pub fn fit(&self, counts: &Cooccurrences, observer: &mut dyn Observer) -> Result<GloveModel> {
        self.check()?;
        in_pool(self.threads, || fit::fit(self, counts, state::State::start(self, counts.len())?, observer))
    }

    fn folder(&self) -> Result<TempFolder> {
        TempFolder::new(self.temporary.as_deref().unwrap_or(&std::env::temp_dir()))
    }

    fn check(&self) -> Result<()> {
        self.check_shared()?;
        if self.memory < 16 << 20 {
            return Err(Error::argument("memory_mb", "at least 16", self.memory >> 20));
        }
        for (name, value) in [("x_max", self.x_max), ("lr", self.lr), ("alpha", self.alpha)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::argument(name, "a number above 0", value));
            }
        }
        Ok(())
    }
}

/// What GloVe has fitted.
pub struct GloveModel {
    vectors: WordVectors,
    losses: Vec<f64>,
    epochs: usize,
}

impl std::fmt::Debug for GloveModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (words, dim) = (self.vectors.len(), self.vectors.dim());
        write!(f, "GloveModel({words} words, dim={dim}, {} epochs)", self.epochs)
    }
}

impl GloveModel {
    /// Returns the mean of ½ f(X) (…)² over all pairs, for each epoch.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Returns whether all epochs are complete: not if an observer stopped the run.
    pub fn is_finished(&self) -> bool {
        self.losses.len() == self.epochs
    }

    /// Resumes the run that wrote a checkpoint, on the same counts. The result has the same bits as
    /// that of a run that was never interrupted. Threads, temporary files and the checkpoint file
    /// are those of this call.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] from the checkpoint, also if it was written for other
    /// counts; those of [`Glove::fit`].
    pub fn resume(
        checkpoint: impl AsRef<Path>,
        counts: &Cooccurrences,
        every: Duration,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let path = checkpoint.as_ref();
        let (glove, state) = checkpoint::load(path, counts)?;
        let glove = glove.checkpoint(path, every);
        glove.check()?;
        fit::fit(&glove, counts, state, observer)
    }

    /// Returns the vectors: the sum of the two vectors of each word.
    pub fn into_vectors(self) -> WordVectors {
        self.vectors
    }

    fn new(glove: &Glove, vocabulary: &TrainingVocabulary, rows: Vec<f32>, losses: Vec<f64>) -> Self {
        let counts = Some(vocabulary.counts.clone());
        let vectors = WordVectors::from_parts(vocabulary.words.clone(), glove.dim, Rows::F32(rows), counts)
            .expect("a vocabulary holds each word once, and dim is above 0");
        GloveModel { vectors, losses, epochs: glove.epochs }
    }
}

#[cfg(test)]
mod tests;
