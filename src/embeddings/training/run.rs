//! A training run: epochs over a text, with progress reported to an observer.
//!
//! There are two drivers. *Shared*: all threads take chunks and update one table
//! ([`SharedTable`](super::shared_table)). *Deterministic*: rounds of [`LANES`] chunks from a
//! frozen table ([`overlay`](super::overlay)), at any number of threads.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::overlay::{Changes, Overlay, merge};
use super::sampling::FastRng;
use super::shared_table::SharedTable;
use super::text::{Chunk, Pass, TrainingText, empty, on_all_threads};
use super::vocabulary::TrainingVocabulary;
use super::window::{LossSum, Task, Worker};
use super::{Rows, lock};
use crate::kernels::vecmath::sum_squares;
use crate::{Error, Result};

/// The number of chunks trained at once in a deterministic round, and so the largest number of
/// threads that it can use.
const LANES: usize = 8;

/// The progress of a training run, reported to an [`Observer`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// The current epoch, counted from 1; 0 while counting before the first epoch.
    pub epoch: usize,
    /// The number of epochs.
    pub epochs: usize,
    /// The number of words read so far, over all epochs.
    pub words: u64,
    /// The total number of words to read.
    pub total_words: u64,
    /// Words per second since the run began or was resumed.
    pub words_per_second: f64,
    /// The mean loss per trained pair of this epoch so far, in nats. NaN before the first pair, so
    /// never at the end of an epoch.
    pub loss: f64,
    /// The learning rate.
    pub lr: f32,
    /// The estimated remaining time of the run.
    pub eta: Duration,
    /// Whether this is the end of an epoch.
    pub epoch_end: bool,
}

impl Progress {
    /// The progress of counting, before the first epoch.
    pub(crate) fn counting(words: u64, total_words: u64, passed: Duration) -> Self {
        Progress { epoch: 0, ..Self::fitting(0, 0, [0, words, total_words], passed, f64::NAN, 0.0, false) }
    }

    /// The progress of fitting, where pairs are counted as words: those done when the work began,
    /// those done now, and the total; `epoch` counts from 0.
    pub(crate) fn fitting(
        epoch: usize,
        epochs: usize,
        [before, done, total]: [u64; 3],
        passed: Duration,
        loss: f64,
        lr: f32,
        epoch_end: bool,
    ) -> Self {
        let rate = (done - before) as f64 / passed.as_secs_f64().max(1e-9);
        let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
        Progress {
            epoch: epoch + 1,
            epochs,
            words: done,
            total_words: total,
            words_per_second: rate,
            loss,
            lr,
            eta: Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX),
            epoch_end,
        }
    }
}

/// An observer of a run, which receives its [`Progress`] and can stop it. Closures are observers.
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// use loquat::embeddings::{Progress, TrainingText, Word2Vec};
///
/// let sentences = || (0..50).map(|_| ["a", "cat", "sat"].map(String::from).to_vec());
/// let text = TrainingText::sentences(sentences);
/// let mut observer = |progress: &Progress| {
///     let stop = progress.epoch_end && progress.epoch == 2;
///     if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
/// };
/// let config = Word2Vec::skip_gram().dim(8).negative_samples(2).subsample(0.0);
/// let model = config.train_model(&text, &mut observer)?;
/// assert_eq!((model.is_finished(), model.losses().len()), (false, 2));
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait Observer: Send {
    /// Called about ten times a second and at the end of each epoch.
    fn progress(&mut self, progress: &Progress) -> ControlFlow<()>;
}

impl<F: FnMut(&Progress) -> ControlFlow<()> + Send> Observer for F {
    fn progress(&mut self, progress: &Progress) -> ControlFlow<()> {
        self(progress)
    }
}

/// The position of a run, from which it can be resumed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// The number of complete epochs.
    pub(crate) epoch: usize,
    /// The number of complete chunks of the current epoch.
    pub(crate) chunks: u64,
    pub(crate) words: u64,
    pub(crate) pairs: u64,
    pub(crate) loss: f64,
    /// The mean loss of each complete epoch.
    pub(crate) losses: Vec<f64>,
}

/// The learning rate and its linear decay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LrDecay {
    pub(crate) lr: f32,
    pub(crate) min_lr: f32,
    pub(crate) epochs: usize,
}

/// Returns the length of a row if its square is not finite in `f32`: such a row has no cosine with
/// others.
pub(crate) fn endless(row: &[f32]) -> Option<f64> {
    let square = sum_squares(row) as f32;
    (!square.is_finite()).then_some(f64::from(square.sqrt()))
}

/// Returns the error of a run that diverged; `epoch` counts from 0.
pub(crate) fn diverged(what: &str, epoch: usize, epochs: usize, lr: f32, found: f64) -> Error {
    let place = format!("epoch {} of {epochs}, at a learning rate of {lr}", epoch + 1);
    Error::NotFinite { what: format!("{what} in {place} (training diverged: use a smaller lr)"), found }
}

/// A run: the text, the task, and the settings of its progress.
pub(crate) struct Run<'r, 'a> {
    pub(crate) text: &'r TrainingText<'a>,
    pub(crate) vocabulary: &'r TrainingVocabulary,
    pub(crate) keep: &'r [u32],
    pub(crate) task: &'r Task,
    pub(crate) schedule: LrDecay,
    pub(crate) seed: u64,
    pub(crate) deterministic: bool,
    /// The time between checkpoints.
    pub(crate) save_every: Option<Duration>,
}

/// Both tables: input rows and output rows.
pub(crate) struct Tables {
    pub(crate) input: Vec<f32>,
    pub(crate) output: Vec<f32>,
}

/// What threads share for progress reports.
struct Report<'o> {
    observer: &'o mut dyn Observer,
    last: Instant,
}

struct Shared<'s, 'o> {
    report: Mutex<Report<'o>>,
    began: Instant,
    words_before: u64,
    state: Mutex<(Position, Instant)>,
    stop: &'s AtomicBool,
    pause: &'s AtomicBool,
}

impl Run<'_, '_> {
    /// Trains until all epochs are complete or the observer stops the run. `save` is called with
    /// the tables at checkpoints.
    pub(crate) fn train(
        &self,
        tables: &mut Tables,
        position: &mut Position,
        observer: &mut dyn Observer,
        save: &mut dyn FnMut(&Tables, &Position) -> Result<()>,
    ) -> Result<()> {
        // Chunks are small enough that threads share a short text and that the learning rate falls
        // in small steps; in rounds they are also small enough that no row is changed by several
        // chunks so often that the sum of their changes overshoots.
        let largest =
            if self.deterministic { (self.vocabulary.len() as u64 / 2).clamp(128, 8 << 10) } else { 64 << 10 };
        let chunk = (self.vocabulary.text_bytes / 64).clamp(128, largest) as usize;
        let (stop, pause) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Shared {
            report: Mutex::new(Report { observer, last: Instant::now() }),
            began: Instant::now(),
            words_before: position.words,
            state: Mutex::new((position.clone(), Instant::now())),
            stop: &stop,
            pause: &pause,
        };
        while position.epoch < self.schedule.epochs && !stop.load(Relaxed) {
            let epoch = position.epoch;
            let pass = self.text.pass(chunk);
            let mut trained = Chunk::default();
            for _ in 0..position.chunks {
                if !pass.next(&mut trained)? {
                    return Err(Error::format(
                        self.text.name(),
                        "expected the text of the checkpoint, found a shorter text",
                    ));
                }
            }
            loop {
                pause.store(false, Relaxed);
                let ended = if self.deterministic {
                    self.rounds(&pass, tables, &shared)?
                } else {
                    self.hogwild(&pass, tables, &shared)?
                };
                *position = lock(&shared.state).0.clone();
                // Checked before anything is saved or returned, so that an error leaves the
                // previous model and checkpoint.
                self.check(tables, position)?;
                if ended || stop.load(Relaxed) {
                    break;
                }
                save(tables, position)?;
                lock(&shared.state).1 = Instant::now();
            }
            if stop.load(Relaxed) {
                break;
            }
            if position.pairs == 0 {
                let reason = format!(
                    "expected two words of the vocabulary next to each other in epoch {}, found none \
                     (use subsample(0) to skip no words, or a lower min_count)",
                    epoch + 1
                );
                return Err(empty(self.text, reason));
            }
            position.losses.push(position.loss / position.pairs as f64);
            shared.report(self, position, true);
            *position = Position {
                epoch: position.epoch + 1,
                words: position.words,
                losses: std::mem::take(&mut position.losses),
                ..Position::default()
            };
            lock(&shared.state).0 = position.clone();
            if self.save_every.is_some() {
                save(tables, position)?;
            }
        }
        Ok(())
    }

    /// Returns the fraction of the whole run that is done at a byte of an epoch, in [0, 1].
    fn progress(&self, epoch: usize, byte: f64) -> f64 {
        ((epoch as f64 + byte / self.vocabulary.text_bytes.max(1) as f64) / self.schedule.epochs as f64).min(1.0)
    }

    /// Returns an error if the loss of this epoch or the length of a row is not finite: training
    /// has diverged.
    fn check(&self, tables: &Tables, position: &Position) -> Result<()> {
        let dim = self.task.dim;
        let LrDecay { lr, epochs, .. } = self.schedule;
        if !position.loss.is_finite() {
            return Err(diverged("word2vec's loss", position.epoch, epochs, lr, position.loss));
        }
        for rows in [&tables.input, &tables.output] {
            if let Some(length) = rows.par_chunks_exact(dim).find_map_first(endless) {
                return Err(diverged("the length of word2vec's vectors", position.epoch, epochs, lr, length));
            }
        }
        Ok(())
    }

    fn lr(&self, progress: f64) -> f32 {
        let LrDecay { lr, min_lr, .. } = self.schedule;
        (lr - (lr - min_lr) * progress as f32).max(min_lr)
    }

    /// Trains on one chunk and returns its number of words.
    fn chunk<T: Rows>(
        &self,
        pass: &Pass<'_, '_>,
        chunk: &Chunk,
        epoch: usize,
        worker: &mut Worker,
        sentence: &mut Vec<u32>,
        input: &mut T,
        output: &mut T,
    ) -> u64 {
        let mut rng = FastRng::new(self.seed, epoch as u64, chunk.number);
        let (mut words, mut bytes) = (0, 0);
        sentence.clear();
        pass.words(chunk, |word| match word {
            Some(word) => {
                words += 1;
                bytes += word.len() as u64 + 1;
                if let Some(id) = self.vocabulary.words.index_of(word)
                    && rng.bits() as u32 <= self.keep[id]
                {
                    sentence.push(id as u32);
                }
            }
            None => {
                let byte = chunk.start + bytes.min(chunk.len);
                let alpha = self.lr(self.progress(epoch, byte as f64));
                worker.sentence(self.task, input, output, sentence, alpha, &mut rng);
                sentence.clear();
            }
        });
        words
    }

    /// Trains with all threads on one table. Returns true at the end of the pass.
    fn hogwild(&self, pass: &Pass<'_, '_>, tables: &mut Tables, shared: &Shared<'_, '_>) -> Result<bool> {
        let dim = self.task.dim;
        let input = SharedTable::new(std::mem::take(&mut tables.input), dim);
        let output = SharedTable::new(std::mem::take(&mut tables.output), dim);
        let epoch = lock(&shared.state).0.epoch;
        let ended = on_all_threads(|_| {
            let (mut worker, mut chunk, mut sentence) = (Worker::new(self.task), Chunk::default(), Vec::new());
            loop {
                if shared.stop.load(Relaxed) || shared.pause.load(Relaxed) {
                    return Ok(false);
                }
                if !pass.next(&mut chunk)? {
                    return Ok(true);
                }
                let words = self.chunk(pass, &chunk, epoch, &mut worker, &mut sentence, &mut &input, &mut &output);
                shared.done(self, 1, words, std::mem::take(&mut worker.loss_sum));
            }
        });
        (tables.input, tables.output) = (input.into_values(), output.into_values());
        Ok(ended?.into_iter().all(|ended| ended))
    }

    /// Trains rounds of chunks from frozen tables. Returns true at the end of the pass.
    fn rounds(&self, pass: &Pass<'_, '_>, tables: &mut Tables, shared: &Shared<'_, '_>) -> Result<bool> {
        let dim = self.task.dim;
        let epoch = lock(&shared.state).0.epoch;
        struct Lane {
            worker: Worker,
            sentence: Vec<u32>,
            input: Changes,
            output: Changes,
            chunk: Chunk,
            words: u64,
        }
        let lane = |_| Lane {
            worker: Worker::new(self.task),
            sentence: Vec::new(),
            input: Changes::default(),
            output: Changes::default(),
            chunk: Chunk::default(),
            words: 0,
        };
        let mut lanes: Vec<Lane> = (0..LANES).map(lane).collect();
        loop {
            if shared.stop.load(Relaxed) || shared.pause.load(Relaxed) {
                return Ok(false);
            }
            let mut used = 0;
            while used < LANES && pass.next(&mut lanes[used].chunk)? {
                used += 1;
            }
            if used == 0 {
                return Ok(true);
            }
            let frozen: &Tables = tables;
            crate::kernels::parallel::adopt();
            lanes[..used].par_iter_mut().with_max_len(1).for_each(|lane| {
                let mut input = Overlay::new(&frozen.input, dim, std::mem::take(&mut lane.input));
                let mut output = Overlay::new(&frozen.output, dim, std::mem::take(&mut lane.output));
                lane.words =
                    self.chunk(pass, &lane.chunk, epoch, &mut lane.worker, &mut lane.sentence, &mut input, &mut output);
                (lane.input, lane.output) = (input.finish(), output.finish());
            });
            merge(&mut tables.input, dim, lanes[..used].iter().map(|lane| &lane.input));
            merge(&mut tables.output, dim, lanes[..used].iter().map(|lane| &lane.output));
            let (mut words, mut loss_sum) = (0, LossSum::default());
            for lane in &mut lanes[..used] {
                words += lane.words;
                loss_sum += std::mem::take(&mut lane.worker.loss_sum);
            }
            shared.done(self, used as u64, words, loss_sum);
        }
    }
}

impl Shared<'_, '_> {
    /// Adds finished chunks to the totals, reports progress from time to time, and requests a
    /// checkpoint when it is due.
    fn done(&self, run: &Run<'_, '_>, chunks: u64, words: u64, loss_sum: LossSum) {
        let mut state = lock(&self.state);
        state.0.chunks += chunks;
        state.0.words += words;
        state.0.pairs += loss_sum.pairs;
        state.0.loss += loss_sum.loss;
        if !state.0.loss.is_finite() {
            // `Run::check` returns the error when all threads have stopped.
            self.stop.store(true, Relaxed);
            return;
        }
        if run.save_every.is_some_and(|every| state.1.elapsed() >= every) {
            self.pause.store(true, Relaxed);
        }
        let position = state.0.clone();
        drop(state);
        self.report(run, &position, false);
    }

    fn report(&self, run: &Run<'_, '_>, position: &Position, epoch_end: bool) {
        let mut report = lock(&self.report);
        if !epoch_end && report.last.elapsed() < Duration::from_millis(100) {
            return;
        }
        report.last = Instant::now();
        let total_words = run.vocabulary.text_words.saturating_mul(run.schedule.epochs as u64);
        let words = [self.words_before, position.words, total_words];
        let (loss, lr) =
            (position.loss / position.pairs as f64, run.lr(position.words as f64 / total_words.max(1) as f64));
        let (epochs, passed) = (run.schedule.epochs, self.began.elapsed());
        let progress = Progress::fitting(position.epoch, epochs, words, passed, loss, lr, epoch_end);
        if report.observer.progress(&progress).is_break() {
            self.stop.store(true, Relaxed);
        }
    }
}
