//! GloVe: global vectors for word representation (Pennington, Socher and Manning 2014,
//! <https://nlp.stanford.edu/pubs/glove.pdf>; agrees in its loss and its updates with the authors' `glove.c`).

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

/// Settings of GloVe, and what starts it: a builder; settings are checked when work starts.
///
/// Words that stand near each other are counted (1/distance each), and vectors are fitted to the logarithms:
///
/// ```text
/// Σ_ij f(X_ij) (w_i · c_j + b_i + b_j − ln X_ij)²        f(x) = min(1, (x / x_max)^alpha)
/// ```
///
/// by AdaGrad, in random order; biases move at a rate of 1, vectors at that of choice. A word's vector is w + c. Counting
/// and shuffling stay within [`Glove::memory_mb`], with temporary files for what does not fit.
///
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

    /// The paper's settings: 100 dimensions, 15 words to each side, words that stand at least 5 times, `x_max` 100,
    /// `alpha` 0.75, learning rate 0.05, 25 epochs; 1024 MB of memory.
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

    /// How many words to each side are near. A window ends with its sentence, so short lines leave little of a wide one.
    pub fn window(mut self, words: usize) -> Self {
        self.window = words;
        self
    }

    /// Counts only the words before a word, not those behind it.
    pub fn left_window(mut self) -> Self {
        self.symmetric = false;
        self
    }

    /// The co-occurrence from which on a pair has full weight. Small texts want less: 10 is usual,
    /// and at ten million words 2 is better for similarity.
    pub fn x_max(mut self, x: f32) -> Self {
        self.x_max = x;
        self
    }

    /// The power by which the weight of rarer pairs falls.
    pub fn alpha(mut self, alpha: f32) -> Self {
        self.alpha = alpha;
        self
    }

    /// How often all pairs are gone through.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// AdaGrad's learning rate, of vectors; biases move at 1.
    pub fn lr(mut self, lr: f32) -> Self {
        self.lr = lr;
        self
    }

    /// How many megabytes (2^20 bytes) counting and shuffling may take, the vocabulary included: at least 16. Fitting
    /// holds its rows besides, words × (`dim` + 1) × 16 bytes, and no less than a batch of 18 MB.
    pub fn memory_mb(mut self, megabytes: usize) -> Self {
        self.memory = megabytes.saturating_mul(1 << 20);
        self
    }

    /// The seed of all random choices: the same one gives the same bits, at any number of threads.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Where temporary files go, if not where the system has them.
    pub fn temporary_folder(mut self, path: impl AsRef<Path>) -> Self {
        self.temporary = Some(path.as_ref().into());
        self
    }

    /// Counts and trains on a text.
    ///
    /// # Errors
    /// As for [`Glove::count`] and [`Glove::fit`].
    pub fn train(&self, text: &TrainingText<'_>) -> Result<WordVectors> {
        let observer = &mut |_: &Progress| ControlFlow::Continue(());
        let counts = self.count(text, observer)?;
        Ok(self.fit(&counts, observer)?.into_vectors())
    }

    /// Counts which words stand near each other. `observer` sees epoch 0; if it ends the work, that is an error.
    ///
    /// # Errors
    /// [`Error::Argument`] naming a setting that cannot be; [`Error::Io`] and [`Error::Format`] from reading the text or
    /// writing temporary files, which are removed.
    pub fn count(&self, text: &TrainingText<'_>, observer: &mut dyn Observer) -> Result<Cooccurrences> {
        self.check()?;
        in_pool(self.threads, || {
            let vocabulary = self.vocabulary(text)?;
            let folder = self.folder()?;
            let counting = Counting { window: self.window, symmetric: self.symmetric, memory: self.memory };
            let report = Mutex::new((observer, Instant::now()));
            let began = Instant::now();
            let told = |bytes: u64| {
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
            let records = cooccurrence::count(text, &vocabulary, counting, &folder, &told)?;
            let records = records.ok_or_else(|| Error::argument("observer", "to go on while counting", "a break"))?;
            if records.len() == 0 {
                return Err(super::training::text::empty(text, "expected words near each other, found none"));
            }
            Cooccurrences::new(vocabulary, records, self.window, self.symmetric)
        })
    }

    /// Fits vectors to counts. `observer` is told of pairs where its fields speak of words.
    ///
    /// # Errors
    /// [`Error::Argument`] naming a setting that cannot be; [`Error::Io`] from temporary files or a
    /// checkpoint; [`Error::NotFinite`] naming the epoch when training diverges, because the
    /// learning rate is too high; a checkpoint's file is then the last that was written before.
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
#[derive(Debug)]
pub struct GloveModel {
    vectors: WordVectors,
    losses: Vec<f64>,
    epochs: usize,
}

impl GloveModel {
    /// The mean of ½ f(X) (…)² over all pairs, in each epoch.
    pub fn losses(&self) -> &[f64] {
        &self.losses
    }

    /// Whether all epochs are done: not when an observer ended the run.
    pub fn is_finished(&self) -> bool {
        self.losses.len() == self.epochs
    }

    /// Goes on with the run that wrote a checkpoint, on the same counts, and ends with the bits of one that was never
    /// interrupted. Threads, temporary files and the checkpoint are those of this call.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] from the checkpoint, also when it was written for other counts, and those of
    /// [`Glove::fit`].
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

    /// The vectors: the sum of each word's two.
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
