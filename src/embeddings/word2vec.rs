//! Word2Vec, with or without subwords.

mod checkpoint;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::WordVectors;
use super::subwords::{Ngrams, Subwords};
use super::training::huffman::Huffman;
use super::training::in_pool;
use super::training::run::{LrDecay, Observer, Position, Progress, Run, Tables};
use super::training::sampling::{Alias, FastRng, keep_probabilities};
use super::training::settings::shared_settings;
use super::training::text::TrainingText;
use super::training::vocabulary::{Keep, TrainingVocabulary};
use super::training::window::{Architecture, Loss};
use super::training::window::{NgramRows, Task};
use super::word_vectors::Rows;
use crate::{Error, Result};

/// A builder that trains word vectors by Word2Vec. Settings are checked when training starts.
///
/// Skip-gram and continuous bag of words (Mikolov et al. 2013, <https://arxiv.org/abs/1301.3781>)
/// with negative sampling or hierarchical softmax (<https://arxiv.org/abs/1310.4546>); with
/// character n-grams the method of fastText (Bojanowski et al. 2017,
/// <https://arxiv.org/abs/1607.04606>). Defaults are those of the original tool, with two
/// differences: up to three words of a window share their negative samples
/// (`docs/lab/word_vectors.md` compares the quality with gensim's), and vectors are initialised in
/// a range twice as wide, as in gensim.
///
/// # Examples
/// ```
/// use loquat::embeddings::{TrainingText, Word2Vec};
///
/// let stories = || (0..200).map(|i| {
///     let (who, what) = [("cat", "milk"), ("dog", "bones")][i % 2];
///     ["the", who, "likes", what, "and", who, "eats", what].map(String::from).to_vec()
/// });
/// let text = TrainingText::sentences(stories);
/// let vectors = Word2Vec::skip_gram().dim(20).epochs(20).train(&text)?;
/// assert!(vectors.similarity("cat", "milk")? > vectors.similarity("cat", "bones")?);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Word2Vec {
    pub(crate) architecture: Architecture,
    pub(crate) loss: Loss,
    pub(crate) dim: usize,
    pub(crate) window: usize,
    pub(crate) min_count: u64,
    pub(crate) max_words: Option<usize>,
    pub(crate) max_counted: usize,
    pub(crate) subsample: f64,
    pub(crate) epochs: usize,
    pub(crate) lr: f32,
    pub(crate) min_lr: f32,
    pub(crate) seed: u64,
    pub(crate) mean: bool,
    pub(crate) ngrams: Option<Ngrams>,
    pub(crate) deterministic: bool,
    #[serde(skip)]
    threads: Option<usize>,
    #[serde(skip)]
    checkpoint: Option<(PathBuf, Duration)>,
}

impl Word2Vec {
    shared_settings!();

    /// Returns the settings of skip-gram with the defaults of the original tool: 100 dimensions,
    /// window 5, 5 negative samples, words that occur at least 5 times, subsampling at 10^-3, 5
    /// epochs, learning rate 0.025.
    pub fn skip_gram() -> Self {
        Word2Vec {
            architecture: Architecture::SkipGram,
            loss: Loss::Negative(5),
            dim: 100,
            window: 5,
            min_count: 5,
            max_words: None,
            max_counted: Keep::COUNTED,
            subsample: 1e-3,
            epochs: 5,
            lr: 0.025,
            min_lr: 1e-4,
            seed: 1,
            mean: true,
            ngrams: None,
            deterministic: false,
            threads: None,
            checkpoint: None,
        }
    }

    /// Returns the settings of continuous bag of words with the mean of the window: learning rate
    /// 0.05, otherwise same as [`Word2Vec::skip_gram`].
    pub fn cbow() -> Self {
        Word2Vec { architecture: Architecture::Cbow, lr: 0.05, ..Self::skip_gram() }
    }

    /// Sets the largest distance between a word and its neighbours. The window of each word has a
    /// random width up to this. Default: 5.
    pub fn window(mut self, words: usize) -> Self {
        self.window = words;
        self
    }

    /// Trains by negative sampling with `n` samples. Default: 5.
    pub fn negative_samples(mut self, n: usize) -> Self {
        self.loss = Loss::Negative(n);
        self
    }

    /// Trains by hierarchical softmax.
    pub fn hierarchical_softmax(mut self) -> Self {
        self.loss = Loss::Hierarchical;
        self
    }

    /// Sets the subsampling threshold: words whose fraction of the text is above it are skipped at
    /// random; 0 skips none. Default: 10^-3.
    pub fn subsample(mut self, threshold: f64) -> Self {
        self.subsample = threshold;
        self
    }

    /// Sets the number of passes over the text. Default: 5.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Sets the initial learning rate, which falls linearly to [`Word2Vec::min_lr`]. Default: 0.025
    /// (skip-gram), 0.05 (CBOW).
    pub fn lr(mut self, lr: f32) -> Self {
        self.lr = lr;
        self
    }

    /// Sets the final learning rate. Default: 10^-4.
    pub fn min_lr(mut self, lr: f32) -> Self {
        self.min_lr = lr;
        self
    }

    /// Sets the seed of all random choices. Default: 1.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Uses the sum of the window for CBOW rather than its mean.
    pub fn sum(mut self) -> Self {
        self.mean = false;
        self
    }

    /// Trains vectors of character n-grams too, so that unseen words have vectors (fastText).
    pub fn subwords(mut self, ngrams: Ngrams) -> Self {
        self.ngrams = Some(ngrams);
        self
    }

    /// Sets whether the same seed gives the same bits at any number of threads, which is slower
    /// (see `docs/lab/word_vectors.md`). Default: false.
    pub fn deterministic(mut self, deterministic: bool) -> Self {
        self.deterministic = deterministic;
        self
    }

    /// Trains on a text.
    ///
    /// # Errors
    /// Same as [`Word2Vec::train_model`].
    pub fn train(&self, text: &TrainingText<'_>) -> Result<WordVectors> {
        Ok(self.train_model(text, &mut |_: &Progress| ControlFlow::Continue(()))?.into_vectors())
    }

    /// Trains on a text, reports progress to `observer`, and returns a model that can be trained
    /// further. If the observer stops the run, the model has what was learned until then.
    ///
    /// # Errors
    /// - [`Error::Argument`] with the name of a setting that is out of range.
    /// - [`Error::Io`] and [`Error::Format`] from reading the text, which must contain words that
    ///   occur often enough, and in each epoch at least two of them next to each other.
    /// - [`Error::NotFinite`] with the epoch, if training diverges because the learning rate is too
    ///   high.
    /// - [`Error::Io`] from writing a checkpoint.
    ///
    /// After an error the checkpoint file is the last one that was written, never one of a diverged
    /// run.
    pub fn train_model(&self, text: &TrainingText<'_>, observer: &mut dyn Observer) -> Result<Word2VecModel> {
        self.check()?;
        in_pool(self.threads, || {
            let vocabulary = self.vocabulary(text)?;
            let mut model = Word2VecModel::init(self.clone(), vocabulary)?;
            model.run(text, observer)?;
            Ok(model)
        })
    }

    /// Checks the settings that do not depend on the text.
    fn check(&self) -> Result<()> {
        self.check_shared()?;
        if self.loss == Loss::Negative(0) {
            return Err(Error::argument("negative_samples", "a number above 0", 0));
        }
        if !(self.lr > 0.0 && self.lr.is_finite() && self.min_lr >= 0.0 && self.min_lr <= self.lr) {
            let found = format_args!("{} and {}", self.lr, self.min_lr).to_string();
            return Err(Error::argument("lr", "lr above 0 and min_lr from 0 to lr", found));
        }
        if !(self.subsample >= 0.0 && self.subsample.is_finite()) {
            return Err(Error::argument("subsample", "a number ≥ 0", self.subsample));
        }
        if let Some(n) = self.ngrams
            && (n.buckets == 0 || n.min_n == 0 || n.min_n > n.max_n || n.buckets > u32::MAX as usize / 2)
        {
            let found = format!("min_n {}, max_n {}, {} buckets", n.min_n, n.max_n, n.buckets);
            return Err(Error::argument("subwords", "1 ≤ min_n ≤ max_n and at least one bucket", found));
        }
        Ok(())
    }
}

/// A trained model: input and output rows, the vocabulary, and the position of the run.
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// use loquat::embeddings::{Progress, TrainingText, Word2Vec};
///
/// let sentences = || (0..50).map(|_| ["a", "cat", "sat"].map(String::from).to_vec());
/// let text = TrainingText::sentences(sentences);
/// let mut continue_always = |_: &Progress| ControlFlow::Continue(());
/// let config = Word2Vec::skip_gram().dim(8).negative_samples(2).subsample(0.0);
/// let mut model = config.train_model(&text, &mut continue_always)?;
/// assert!(model.is_finished() && model.losses().len() == 5);
/// model.train_more(&text, 2, &mut continue_always)?;
/// assert_eq!(model.into_vectors().len(), 3);
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Word2VecModel {
    pub(crate) config: Word2Vec,
    pub(crate) vocabulary: TrainingVocabulary,
    pub(crate) tables: Tables,
    pub(crate) position: Position,
}

impl std::fmt::Debug for Word2VecModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (words, dim, epoch) = (self.vocabulary.len(), self.config.dim, self.position.epoch);
        write!(f, "Word2VecModel({words} words, dim={dim}, {epoch} epochs)")
    }
}

impl Word2VecModel {
    fn init(config: Word2Vec, vocabulary: TrainingVocabulary) -> Result<Self> {
        let n = vocabulary.len();
        if let Loss::Negative(samples) = config.loss
            && samples >= n
        {
            return Err(Error::argument("negative_samples", format!("fewer than the {n} words"), samples));
        }
        let rows = n + config.ngrams.map_or(0, |ngrams| ngrams.buckets);
        let size = |rows: usize| rows.checked_mul(config.dim).filter(|&size| size <= isize::MAX as usize / 4);
        let too_large = || Error::argument("dim", format!("vectors of {rows} rows that fit into memory"), config.dim);
        let (input, output) = (size(rows).ok_or_else(too_large)?, size(n).ok_or_else(too_large)?);
        let mut tables = Tables { input: Vec::new(), output: Vec::new() };
        tables.input.try_reserve_exact(input).map_err(|_| too_large())?;
        tables.output.try_reserve_exact(output).map_err(|_| too_large())?;
        tables.input.resize(input, 0.0);
        tables.output.resize(output, 0.0);
        randomise(&mut tables.input, &config, 0);
        Ok(Word2VecModel { config, vocabulary, tables, position: Position::default() })
    }

    fn run(&mut self, text: &TrainingText<'_>, observer: &mut dyn Observer) -> Result<()> {
        let config = self.config.clone();
        let keep = keep_probabilities(&self.vocabulary.counts, config.subsample);
        let ngrams = config.ngrams.map(|ngrams| {
            let mut lists = NgramRows { starts: vec![0], rows: Vec::new() };
            let first = self.vocabulary.len() as u32;
            for word in self.vocabulary.words.iter() {
                lists.rows.extend(ngrams.buckets_of(word).iter().map(|bucket| first + bucket));
                lists.starts.push(lists.rows.len() as u32);
            }
            lists
        });
        let task = Task {
            architecture: config.architecture,
            loss: config.loss,
            dim: config.dim,
            window: config.window,
            mean: config.mean,
            noise: matches!(config.loss, Loss::Negative(_)).then(|| Alias::unigram(&self.vocabulary.counts)),
            tree: (config.loss == Loss::Hierarchical).then(|| Huffman::new(&self.vocabulary.counts)),
            ngrams,
        };
        let run = Run {
            text,
            vocabulary: &self.vocabulary,
            keep: &keep,
            task: &task,
            schedule: LrDecay { lr: config.lr, min_lr: config.min_lr, epochs: config.epochs },
            seed: config.seed,
            deterministic: config.deterministic,
            save_every: config.checkpoint.as_ref().map(|(_, every)| *every),
        };
        let mut save = |tables: &Tables, position: &Position| match &config.checkpoint {
            Some((path, _)) => checkpoint::save(path, &config, &self.vocabulary, tables, position),
            None => Ok(()),
        };
        run.train(&mut self.tables, &mut self.position, observer, &mut save)
    }

    /// Returns the settings.
    pub fn config(&self) -> &Word2Vec {
        &self.config
    }

    /// Returns the mean loss per trained pair of each complete epoch, in nats. The losses are
    /// finite: an epoch without a pair is an error, and so is one that diverges.
    pub fn losses(&self) -> &[f64] {
        &self.position.losses
    }

    /// Returns whether all epochs are complete: not if an observer stopped the run, and not for a
    /// checkpoint written during training.
    pub fn is_finished(&self) -> bool {
        self.position.epoch >= self.config.epochs
    }

    /// Returns a copy of the vectors.
    pub fn vectors(&self) -> WordVectors {
        vectors(&self.config, self.vocabulary.clone(), self.tables.input.clone())
    }

    /// Returns the vectors.
    pub fn into_vectors(self) -> WordVectors {
        drop(self.tables.output);
        vectors(&self.config, self.vocabulary, self.tables.input)
    }

    /// Trains on more text for `epochs` epochs, beginning with the initial learning rate. Words of
    /// the new text that occur often enough there are appended to the vocabulary.
    ///
    /// The current model stays in memory during training and is unchanged after an error.
    ///
    /// # Errors
    /// Same as [`Word2Vec::train_model`]; [`Error::Argument`] for hierarchical softmax, whose tree
    /// cannot grow.
    pub fn train_more(&mut self, text: &TrainingText<'_>, epochs: usize, observer: &mut dyn Observer) -> Result<()> {
        if self.config.loss == Loss::Hierarchical {
            return Err(Error::argument("train_more", "a model of negative sampling", "hierarchical softmax"));
        }
        let mut config = self.config.clone();
        config.epochs = epochs;
        config.check()?;
        in_pool(config.threads, || {
            let new =
                TrainingVocabulary::of(text, Keep { min_count: 1, limit: None, counted: self.config.max_counted })?;
            let mut vocabulary = self.vocabulary.clone();
            for (i, word) in new.words.iter().enumerate() {
                match vocabulary.words.index_of(word) {
                    Some(old) => vocabulary.counts[old] += new.counts[i],
                    None if new.counts[i] >= config.min_count => {
                        vocabulary.words.insert(word);
                        vocabulary.counts.push(new.counts[i]);
                    }
                    None => {}
                }
            }
            (vocabulary.text_words, vocabulary.text_bytes) = (new.text_words, new.text_bytes);
            let (dim, before) = (config.dim, self.vocabulary.len());
            let mut rows = vec![0.0; (vocabulary.len() - before) * dim];
            randomise(&mut rows, &config, before as u64);
            let (words, buckets) = self.tables.input.split_at(before * dim);
            let input = [words, &rows, buckets].concat();
            rows.fill(0.0);
            let tables = Tables { input, output: [&self.tables.output[..], &rows].concat() };
            // Different random numbers from those of the first run.
            config.seed = config.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut more = Word2VecModel { config, vocabulary, tables, position: Position::default() };
            more.run(text, observer)?;
            *self = more;
            Ok(())
        })
    }

    /// Resumes the run that wrote a checkpoint, on the same text. A deterministic run ends with the
    /// same bits as one that was never interrupted. `threads` and the checkpoint file are those of
    /// this call.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] from the checkpoint; those of [`Word2Vec::train_model`].
    /// After an error the checkpoint file is the last one that was written.
    pub fn resume(
        checkpoint: impl AsRef<Path>,
        text: &TrainingText<'_>,
        every: Duration,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let mut model = Self::load(&checkpoint)?;
        if text.bytes().is_some_and(|bytes| bytes != model.vocabulary.text_bytes) {
            let reason = format!(
                "expected the text of the checkpoint ({} bytes), found {} bytes",
                model.vocabulary.text_bytes,
                text.bytes().unwrap_or_default()
            );
            return Err(Error::format(text.name(), reason));
        }
        model.config.checkpoint = Some((checkpoint.as_ref().into(), every));
        model.run(text, observer)?;
        Ok(model)
    }
}

/// Initialises each number uniformly in ±1/dimension, as fastText and gensim do. The original tool
/// uses half of that range, from which vectors take longer to grow: short runs learn less.
fn randomise(rows: &mut [f32], config: &Word2Vec, item: u64) {
    let mut rng = FastRng::new(config.seed, u64::MAX, item);
    let width = 2.0 / config.dim as f32;
    for x in rows {
        *x = ((rng.bits() >> 40) as f32 / (1 << 24) as f32 - 0.5) * width;
    }
}

/// Returns the trained rows as word vectors; with subwords, each is the mean of the word's own row
/// and those of its n-grams.
fn vectors(config: &Word2Vec, vocabulary: TrainingVocabulary, mut input: Vec<f32>) -> WordVectors {
    let dim = config.dim;
    let subwords = config.ngrams.map(|ngrams| {
        let buckets = input.split_off(vocabulary.len() * dim);
        input.shrink_to_fit();
        let subwords = Subwords::from_parts(ngrams, dim, buckets);
        for (word, row) in vocabulary.words.iter().zip(input.chunks_exact_mut(dim)) {
            let n = subwords.add_rows(word, row);
            row.iter_mut().for_each(|x| *x *= 1.0 / (n + 1) as f32);
        }
        subwords
    });
    let mut vectors = WordVectors::from_parts(vocabulary.words, dim, Rows::F32(input), Some(vocabulary.counts))
        .expect("a vocabulary holds each word once, and dim is above 0");
    vectors.subwords = subwords;
    vectors
}

#[cfg(test)]
mod tests;
