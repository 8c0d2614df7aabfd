//! The loop that trains: batches, losses, gradients, steps; validation, checkpoints, history.

mod best;
mod event;
mod folder;
mod lock;
mod step;
#[cfg(test)]
mod tests;

use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use best::{Best, Goal};
use best::{Kept, VAL_LOSS, Watch, check_names};
pub use event::{TrainEnd, TrainEvent, TrainObserver};
pub use folder::{Existing, RunFolder};
use folder::{State, load_checkpoint};
use lock::Lock;
pub use step::{BatchSize, evaluate};
use step::{Moved, Step};

use crate::error::{Error, Result};
use crate::nn::Module;
use crate::ops::{Precision, with_precision};
use crate::tensor::{Tensor, no_grad};
use crate::training::data::BatchSource;
use crate::training::history::{History, Row};
use crate::training::{Optimizer, Schedule};

/// What a validation measures of a model beside the loss: numbers by name.
type Measure<'a, M> = Box<dyn FnMut(&M) -> Result<Vec<(String, f64)>> + 'a>;

/// How long a run is, and what happens on the way. `B` is the batch, `M` the model.
///
/// The [`Trainer`] knows no model: it is given the loss as a function of model and batch. It prints nothing: whoever wants to
/// see something observes ([`TrainObserver`]).
///
/// A run in a [`RunFolder`] can be stopped and resumed at any step, and goes on **bit for bit**: N + M steps give the same weights,
/// moments and losses as N steps, save, load, M steps. Chance (dropout) is keyed by seed and step, data sources
/// by their state; nothing hangs on the number of threads.
///
/// After a run the model holds its **last** weights, unless it stops early: then it holds the
/// **best** ones, as the folder does ([`Trainer::restore_best`]; [`TrainReport::held`] says which).
///
/// ```
/// use std::ops::ControlFlow;
/// use loquat::nn::{Embedding, Linear};
/// use loquat::training::data::{Batch, RandomWindows, SequentialWindows, TokenStream};
/// use loquat::training::{AdamW, Existing, Optimizer, RunFolder, Schedule, TrainEvent, Trainer};
/// use loquat::{Result, Rng, Tensor, ops};
///
/// /// The next token by the last one alone.
/// struct Bigram { embedding: Embedding, head: Linear }
/// loquat::module!(Bigram { embedding, head });
///
/// fn loss(model: &Bigram, batch: &Batch) -> Result<Tensor> {
///     let hidden = model.embedding.forward(&batch.input_ids)?;
///     ops::cross_entropy(&model.head.forward(&hidden)?, batch.labels.as_ref().expect("windows have labels"))
/// }
///
/// let mut rng = Rng::seed(1);
/// let mut model = Bigram { embedding: Embedding::init(5, 8, 0.1, &mut rng)?, head: Linear::init(8, 5, true, &mut rng)? };
/// let (train, validation) = TokenStream::from_ids((0..1000).map(|i| i % 5).collect()).split(0.9)?;
/// let mut train = RandomWindows::new(train, 16, 4, 42)?;
/// let mut validation = SequentialWindows::new(validation, 16, 4)?;
///
/// let folder = std::env::temp_dir().join("loquat-trainer-doc");
/// let mut optimizer = Optimizer::new(AdamW { lr: 0.1, ..AdamW::default() })?;
/// let mut steps = 0;
/// let report = Trainer::steps(50)
///     .schedule(Schedule::cosine(50).warmup(5).min_factor(0.1))
///     .clip_grad_norm(1.0)
///     .validate(&mut validation, 25)
///     .folder(RunFolder::new(&folder).existing(Existing::Replace))
///     .observe(&mut |event: &TrainEvent<'_>| {
///         steps += usize::from(matches!(event, TrainEvent::Step { .. }));
///         ControlFlow::Continue(())
///     })
///     .run(&mut model, &mut optimizer, &mut train, loss)?;
/// assert_eq!(steps, 50);
/// assert!(report.best.is_some_and(|best| best.value < 0.1), "{report:?}");
/// assert!(folder.join("model.safetensors").exists());
/// # std::fs::remove_dir_all(folder).ok();
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct Trainer<'a, B, M> {
    budget: Budget,
    seed: u64,
    precision: Precision,
    accumulate: usize,
    max_norm: Option<f64>,
    schedule: Schedule,
    validation: Option<&'a mut dyn BatchSource<Batch = B>>,
    measure: Option<Measure<'a, M>>,
    /// Steps from validation to validation, as each of both said.
    validate_every: Vec<u64>,
    watch: Watch,
    patience: Option<u64>,
    restore_best: Option<bool>,
    save_every: Option<u64>,
    log_every: u64,
    folder: Option<RunFolder<'a>>,
    observer: Option<&'a mut dyn TrainObserver>,
}

#[derive(Clone, Copy)]
enum Budget {
    Steps(u64),
    Epochs(u64),
}

/// What came of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainReport {
    /// Steps done, those before a resumption included.
    pub steps: u64,
    /// Why the run ended.
    pub stop: TrainEnd,
    /// The step whose weights the model holds: that of [`TrainReport::best`] if those were
    /// restored, else the last.
    pub held: u64,
    /// The best validation, if there was one.
    pub best: Option<Best>,
    /// Losses, learning rates, speed.
    pub history: History,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Steps done.
    step: u64,
    /// Epochs done.
    epoch: u64,
    best: Option<Best>,
    /// Validations since the best one.
    stale: u64,
    /// Since the last row of the history.
    pending: Pending,
    /// Time spent in earlier parts of the run.
    seconds: f64,
}

/// Sums since the last row of the history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Pending {
    steps: u64,
    loss: f64,
    tokens: u64,
    seconds: f64,
}

impl<'a, B, M> Trainer<'a, B, M> {
    /// A run of so many steps, those before a resumption included.
    pub fn steps(steps: u64) -> Self {
        Self::new(Budget::Steps(steps))
    }

    /// A run of so many epochs, those before a resumption included.
    pub fn epochs(epochs: u64) -> Self {
        Self::new(Budget::Epochs(epochs))
    }

    fn new(budget: Budget) -> Self {
        Self {
            budget,
            seed: 0,
            precision: Precision::F32,
            accumulate: 1,
            max_norm: None,
            schedule: Schedule::constant(),
            validation: None,
            measure: None,
            validate_every: Vec::new(),
            watch: Watch::default(),
            patience: None,
            restore_best: None,
            save_every: None,
            log_every: 10,
            folder: None,
            observer: None,
        }
    }

    /// The seed of dropout; 0 if not said.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The precision of matrix products, in training and validation; f32 if not said. In [`Precision::Bf16`] weights, sums, norms,
    /// losses and moments stay in f32.
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Batches in a step, whose gradients are averaged by their labels as if they were one batch; 1 if not said.
    pub fn accumulate(self, batches: usize) -> Self {
        Self { accumulate: batches, ..self }
    }

    /// Scales gradients of a norm above this down to it.
    pub fn clip_grad_norm(self, max_norm: f64) -> Self {
        Self { max_norm: Some(max_norm), ..self }
    }

    /// The learning rate over the steps; constant if not said.
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Validates after each `every` steps and at the end, by the mean loss over all batches of an
    /// epoch of `source`.
    pub fn validate(mut self, source: &'a mut dyn BatchSource<Batch = B>, every: u64) -> Self {
        self.validate_every.push(every);
        Self { validation: Some(source), ..self }
    }

    /// Validates after each `every` steps and at the end by numbers of one's own, which go into the
    /// history and to the observer. It may stand alone or beside [`Trainer::validate`], with the
    /// same `every`. `measure` runs without gradients and dropout.
    ///
    /// ```
    /// use loquat::nn::Linear;
    /// use loquat::training::{Goal, Trainer};
    /// # use loquat::training::data::Batch;
    ///
    /// let accuracy = |_: &Linear| 0.75; // what the model does on a test set
    /// let trainer = Trainer::epochs(10)
    ///     .validate_by(100, |model: &Linear| Ok([("accuracy", accuracy(model))]))
    ///     .best_by("accuracy", Goal::Highest)
    ///     .early_stopping(3);
    /// # let _: Trainer<'_, Batch, Linear> = trainer;
    /// ```
    pub fn validate_by<N: Into<String>, I: IntoIterator<Item = (N, f64)>>(
        mut self,
        every: u64,
        mut measure: impl FnMut(&M) -> Result<I> + 'a,
    ) -> Self {
        self.validate_every.push(every);
        let measure: Measure<'a, M> =
            Box::new(move |model| Ok(measure(model)?.into_iter().map(|(name, value)| (name.into(), value)).collect()));
        Self { measure: Some(measure), ..self }
    }

    /// Which number of a validation decides what is the best: for early stopping, for the weights
    /// in the folder, and for [`Trainer::restore_best`]. `metric` is a name that
    /// [`Trainer::validate_by`] gives, or `val_loss`. Default: the lowest `val_loss`.
    pub fn best_by(self, metric: impl Into<String>, goal: Goal) -> Self {
        Self { watch: Watch { metric: metric.into(), goal }, ..self }
    }

    /// Ends the run when so many validations in a row were not better than the best one. The model
    /// then holds the best weights ([`Trainer::restore_best`]).
    pub fn early_stopping(self, patience: u64) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Whether the model holds the best weights by validation when the run has ended, for whatever
    /// reason, and not the last ones. The folder's last checkpoint keeps the last ones all the
    /// same, to go on from. Default: true with [`Trainer::early_stopping`], else false. Without a
    /// folder the best weights are kept in memory, beside the model's.
    pub fn restore_best(self, restore: bool) -> Self {
        Self { restore_best: Some(restore), ..self }
    }

    /// Keeps model, history and checkpoints in a folder. A checkpoint is written at the end at least.
    pub fn folder(self, folder: RunFolder<'a>) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Writes a checkpoint after each `every` steps.
    pub fn save_every(self, every: u64) -> Self {
        Self { save_every: Some(every), ..self }
    }

    /// Writes a row of the history after each `every` steps; 10 if not said. Validations have rows anyway.
    pub fn log_every(self, every: u64) -> Self {
        Self { log_every: every, ..self }
    }

    /// Tells an observer what happens; it may stop the run.
    pub fn observe(self, observer: &'a mut dyn TrainObserver) -> Self {
        Self { observer: Some(observer), ..self }
    }

    fn check(&self) -> Result<()> {
        self.schedule.check()?;
        let length = match self.budget {
            Budget::Steps(steps) => ("steps", Some(steps)),
            Budget::Epochs(epochs) => ("epochs", Some(epochs)),
        };
        let every = [
            length,
            ("accumulate", Some(self.accumulate as u64)),
            ("validate every", self.validate_every.iter().copied().min()),
            ("save_every", self.save_every),
            ("log_every", Some(self.log_every)),
            ("patience", self.patience),
        ];
        if let Some((name, _)) = every.iter().find(|(_, value)| *value == Some(0)) {
            return Err(Error::argument(*name, "a number above 0", 0));
        }
        if let Some(norm) = self.max_norm.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            return Err(Error::argument("clip_grad_norm", "a norm above 0", norm));
        }
        if let [first, .., last] = self.validate_every[..]
            && first != last
        {
            return Err(Error::argument("validate every", format!("{first}, as said first"), last));
        }
        let watches = self.watch != Watch::default();
        for (name, asked) in [
            ("early_stopping", self.patience.is_some()),
            ("restore_best", self.restore_best == Some(true)),
            ("best_by", watches),
        ] {
            if asked && self.validate_every.is_empty() {
                return Err(Error::argument(
                    name,
                    "validation data or a validation by numbers of one's own",
                    "neither",
                ));
            }
        }
        if self.validation.is_none() && !self.validate_every.is_empty() && !watches {
            let expected = "a number to go by, as there are no validation data";
            return Err(Error::argument("best_by", expected, VAL_LOSS));
        }
        if self.save_every.is_some() && self.folder.is_none() {
            return Err(Error::argument("save_every", "a folder", "none"));
        }
        Ok(())
    }

    fn tell(&mut self, course: &mut Course, event: TrainEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            course.asked_to_stop |= observer.on_event(&event).is_break();
        }
    }

    /// Trains `model` on the batches of `train`; `loss` is the mean loss of a batch. Afterwards the
    /// model holds the weights of [`TrainReport::held`].
    ///
    /// Each step runs inside [`team`](crate::kernels::parallel::team) and [`train_mode`](crate::nn::train_mode);
    /// validation without gradients and dropout.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a loss or gradient is: the step's number is named, the model is as
    /// it was before the step and nothing is saved. [`Error::Argument`] for settings that make no
    /// sense, for data that have an epoch without a batch (fewer examples than a batch, say, where
    /// smaller ones are dropped), for a folder in which another process trains, and for a
    /// checkpoint of a run with other settings. What `loss`, the validation, the data sources and
    /// the folder return.
    pub fn run<S>(
        mut self,
        model: &mut M,
        optimizer: &mut Optimizer,
        train: &mut S,
        loss: impl Fn(&M, &B) -> Result<Tensor> + Sync,
    ) -> Result<TrainReport>
    where
        M: Module + Send + Sync,
        S: BatchSource<Batch = B> + ?Sized,
        B: BatchSize + Send + Sync,
    {
        self.check()?;
        let mut course = self.open(model, optimizer, train)?;
        let total_steps = self.total_steps(train);
        let step = Step { seed: self.seed, precision: self.precision, max_norm: self.max_norm, loss: &loss };
        let start = TrainEvent::Start { step: course.progress.step, total_steps };
        self.tell(&mut course, start);
        // Whoever stands at the end of an epoch has seen its batches.
        let (mut batches_seen, mut first) = (course.progress.step > 0 || train.state().position > 0, true);
        let reason = loop {
            if let Some(reason) = self.reason_to_stop(&course) {
                break reason;
            }
            let (batches, epoch_ended) = self.next_batches(train)?;
            if batches.is_empty() && !std::mem::replace(&mut batches_seen, false) {
                return Err(Error::argument("training data", "at least one batch in an epoch", "none"));
            }
            if !batches.is_empty() {
                batches_seen = true;
                let begun = Instant::now();
                optimizer.set_lr_factor(self.schedule.factor(course.progress.step));
                let Moved { loss: mean_loss, grad_norm, without_gradient } =
                    step.run(course.progress.step, model, optimizer, &batches, std::mem::take(&mut first))?;
                let tokens = batches.iter().map(BatchSize::n_tokens).sum();
                drop(batches);
                let seconds = begun.elapsed().as_secs_f64().max(1e-9);
                course.progress.step += 1;
                course.progress.add(mean_loss, tokens, seconds);
                let step_number = course.progress.step;
                let in_epoch = match train.batches_per_epoch() {
                    _ if epoch_ended => 1.0,
                    Some(batches) => train.state().position as f64 / batches.max(1) as f64,
                    None => 0.0,
                };
                let event = TrainEvent::Step {
                    step: step_number,
                    total_steps,
                    epoch: course.progress.epoch as f64 + in_epoch,
                    loss: mean_loss,
                    lr: optimizer.lr(),
                    grad_norm,
                    tokens,
                    tokens_per_second: tokens as f64 / seconds,
                };
                self.tell(&mut course, event);
                if !without_gradient.is_empty() {
                    self.tell(&mut course, TrainEvent::WithoutGradient { step: step_number, paths: &without_gradient });
                }
                let last = Row {
                    epoch: train.batches_per_epoch().map(|_| course.progress.epoch as f64 + in_epoch),
                    lr: Some(optimizer.lr()),
                    grad_norm: Some(grad_norm),
                    ..Row::at(step_number)
                };
                if self.validate_every.first().is_some_and(|every| step_number.is_multiple_of(*every)) {
                    let row = self.validate_now(model, &loss, &mut course, last, true)?;
                    course.log(row);
                } else if step_number.is_multiple_of(self.log_every) {
                    course.log(last);
                } else {
                    course.unlogged = Some(last);
                }
            }
            if epoch_ended {
                course.progress.epoch += 1;
                let event = TrainEvent::Epoch { step: course.progress.step, epoch: course.progress.epoch };
                self.tell(&mut course, event);
            }
            let due = self.save_every.is_some_and(|every| course.progress.step.is_multiple_of(every));
            if due && self.reason_to_stop(&course).is_none() {
                self.save(model, optimizer, train, &mut course)?;
            }
        };
        if reason == TrainEnd::Finished {
            self.finish(model, &loss, &mut course)?;
        }
        self.save(model, optimizer, train, &mut course)?;
        let held = self.hold(model, &course)?;
        let step = course.progress.step;
        self.tell(&mut course, TrainEvent::End { step, reason });
        Ok(TrainReport { steps: step, stop: reason, held, best: course.progress.best, history: course.history })
    }

    /// Whether the model is to hold the best weights at the end.
    fn restores(&self) -> bool {
        self.restore_best.unwrap_or(self.patience.is_some())
    }

    /// Gives the model the weights that it is to hold after the run, and their step.
    fn hold(&self, model: &mut M, course: &Course) -> Result<u64>
    where
        M: Module,
    {
        let last = course.progress.step;
        let Some(best) = course.progress.best.filter(|best| self.restores() && best.step != last) else {
            return Ok(last);
        };
        match (&self.folder, &course.kept) {
            (Some(folder), _) => folder.load_model(model)?,
            (None, Some(kept)) => kept.put_back(model)?,
            (None, None) => unreachable!("without a folder the best weights are kept"),
        }
        Ok(best.step)
    }

    /// A fresh run, or the one that the folder's last checkpoint belongs to.
    fn open<S: BatchSource<Batch = B> + ?Sized>(
        &self,
        model: &mut M,
        optimizer: &mut Optimizer,
        train: &mut S,
    ) -> Result<Course>
    where
        M: Module,
    {
        let mut course = Course {
            progress: Progress::default(),
            history: History::default(),
            began: Instant::now(),
            saved: None,
            unlogged: None,
            asked_to_stop: false,
            kept: None,
            _lock: None,
        };
        let Some(folder) = &self.folder else { return Ok(course) };
        let (lock, checkpoint) = folder.open()?;
        course._lock = Some(lock);
        if let Some(path) = checkpoint {
            let state = load_checkpoint(&path, model, optimizer)?;
            for (name, ours, theirs) in
                [("seed", self.seed, state.seed), ("accumulate", self.accumulate as u64, state.accumulate as u64)]
            {
                if ours != theirs {
                    return Err(Error::argument(name, format!("{theirs}, as in {}", path.display()), ours));
                }
            }
            if state.progress.best.is_some() && self.watch != state.watch {
                let expected = format!("the {:?} `{}`, as in {}", state.watch.goal, state.watch.metric, path.display());
                let found = format!("the {:?} `{}`", self.watch.goal, self.watch.metric);
                return Err(Error::argument("best_by", expected, found));
            }
            train.restore(&state.data)?;
            folder.put_best_back(&path)?;
            state.history.into_iter().for_each(|row| course.history.push(row));
            course.saved = Some(state.progress.step);
            course.progress = state.progress;
        }
        folder.write_files()?;
        Ok(course)
    }

    fn reason_to_stop(&self, course: &Course) -> Option<TrainEnd> {
        let Progress { step, epoch, stale, .. } = course.progress;
        let spent = match self.budget {
            Budget::Steps(steps) => step >= steps,
            Budget::Epochs(epochs) => epoch >= epochs,
        };
        if course.asked_to_stop {
            Some(TrainEnd::Observer)
        } else if self.patience.is_some_and(|patience| stale >= patience) {
            Some(TrainEnd::EarlyStopping)
        } else {
            spent.then_some(TrainEnd::Finished)
        }
    }

    fn total_steps<S: BatchSource<Batch = B> + ?Sized>(&self, train: &S) -> Option<u64> {
        match self.budget {
            Budget::Steps(steps) => Some(steps),
            Budget::Epochs(epochs) => {
                Some(epochs.saturating_mul(train.batches_per_epoch()?.div_ceil(self.accumulate) as u64))
            }
        }
    }

    /// The batches of a step, and whether the epoch ended behind them.
    fn next_batches<S: BatchSource<Batch = B> + ?Sized>(&self, train: &mut S) -> Result<(Vec<B>, bool)> {
        let mut batches = Vec::new();
        while batches.len() < self.accumulate {
            match train.next_batch()? {
                Some(batch) => batches.push(batch),
                None => return Ok((batches, true)),
            }
        }
        Ok((batches, false))
    }

    /// Validates, and puts what it found into the row; `scheduled` validations count for early
    /// stopping.
    fn validate_now(
        &mut self,
        model: &M,
        loss: &(impl Fn(&M, &B) -> Result<Tensor> + Sync),
        course: &mut Course,
        row: Row,
        scheduled: bool,
    ) -> Result<Row>
    where
        M: Module + Sync,
        B: BatchSize + Send + Sync,
    {
        let step = course.progress.step;
        let mut val_loss = None;
        if let Some(source) = &mut self.validation {
            let mean = with_precision(self.precision, || evaluate(model, &mut **source, loss))?;
            let mean = mean.mean().ok_or_else(|| Error::argument("validation data", "at least one label", "none"))?;
            if !mean.is_finite() {
                return Err(Error::NotFinite { what: format!("validation loss after step {step}"), found: mean });
            }
            val_loss = Some(mean);
        }
        let metrics = match &mut self.measure {
            Some(measure) => with_precision(self.precision, || no_grad(|| measure(model)))?,
            None => Vec::new(),
        };
        check_names(&metrics)?;
        let value = self.watch.value(step, val_loss, &metrics)?;
        let best = course.progress.best.is_none_or(|best| self.watch.is_better(value, best.value));
        if best {
            course.progress.best = Some(Best { step, value });
            course.progress.stale = 0;
            match &self.folder {
                Some(folder) => folder.save_model(model)?,
                None => course.kept = self.restores().then(|| Kept::of(model)),
            }
        } else {
            course.progress.stale += u64::from(scheduled);
        }
        self.tell(course, TrainEvent::Validation { step, loss: val_loss, metrics: &metrics, best });
        Ok(metrics.into_iter().fold(Row { val_loss, ..row }, |row, (name, value)| row.with(name, value)))
    }

    /// What is due at the end of a run and was not at its last step: a validation, a row.
    fn finish(
        &mut self,
        model: &M,
        loss: &(impl Fn(&M, &B) -> Result<Tensor> + Sync),
        course: &mut Course,
    ) -> Result<()>
    where
        M: Module + Sync,
        B: BatchSize + Send + Sync,
    {
        let step = course.progress.step;
        let logged = course.history.rows().last().filter(|row| row.step == step);
        let row = course.unlogged.take().or(logged.cloned());
        let Some(mut row) = row.filter(|_| course.saved != Some(step)) else { return Ok(()) };
        if self.validate_every.first().is_some_and(|every| !step.is_multiple_of(*every)) {
            row = self.validate_now(model, loss, course, row, false)?;
        }
        course.log(row);
        Ok(())
    }

    /// Writes a checkpoint, unless this step's was.
    fn save<S: BatchSource<Batch = B> + ?Sized>(
        &mut self,
        model: &M,
        optimizer: &Optimizer,
        train: &S,
        course: &mut Course,
    ) -> Result<()>
    where
        M: Module,
    {
        let step = course.progress.step;
        let Some(folder) = self.folder.as_ref().filter(|_| course.saved != Some(step)) else { return Ok(()) };
        let mut progress = course.progress.clone();
        progress.seconds = course.seconds();
        let watch = self.watch.clone();
        let state =
            State::new(self.seed, self.accumulate, self.schedule, watch, train.state(), progress, &course.history);
        let path = folder.save_checkpoint(model, optimizer, &state)?;
        folder.save_history(&course.history)?;
        if self.validate_every.is_empty() {
            folder.save_model(model)?;
        }
        course.saved = Some(step);
        self.tell(course, TrainEvent::Saved { step, path: &path });
        Ok(())
    }
}

/// A run on its way.
struct Course {
    progress: Progress,
    history: History,
    /// When this part of the run began.
    began: Instant,
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// The last step's row, if it is not in the history.
    unlogged: Option<Row>,
    asked_to_stop: bool,
    /// The best weights, if they are restored and there is no folder that has them.
    kept: Option<Kept>,
    /// Keeps other runs out of the folder.
    _lock: Option<Lock>,
}

impl Course {
    /// Puts a row into the history, with the means since the last one.
    fn log(&mut self, row: Row) {
        let pending = std::mem::take(&mut self.progress.pending);
        let means = (pending.steps > 0).then(|| Row {
            loss: Some(pending.loss / pending.steps as f64),
            tokens_per_second: Some(pending.tokens as f64 / pending.seconds),
            seconds: Some(self.seconds()),
            ..row.clone()
        });
        self.history.push(means.unwrap_or(row));
        self.unlogged = None;
    }

    /// The time of the run, earlier parts included.
    fn seconds(&self) -> f64 {
        self.progress.seconds + self.began.elapsed().as_secs_f64()
    }
}

impl Progress {
    fn add(&mut self, loss: f64, tokens: usize, seconds: f64) {
        self.pending.steps += 1;
        self.pending.loss += loss;
        self.pending.tokens += tokens as u64;
        self.pending.seconds += seconds;
    }
}
