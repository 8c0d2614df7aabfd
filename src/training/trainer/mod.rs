//! The training loop: batches, losses, gradients, steps; validation, checkpoints, history.

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
use step::{Step, StepResult};

use crate::error::{Error, Result};
use crate::nn::Module;
use crate::ops::{Precision, with_precision};
use crate::tensor::{Tensor, no_grad};
use crate::training::data::BatchSource;
use crate::training::history::{History, Row};
use crate::training::{Optimizer, Schedule};

/// A callback that measures a model: metrics by name.
type Measure<'a, M> = Box<dyn FnMut(&M) -> Result<Vec<(String, f64)>> + 'a>;

/// The training loop: its length, validation, checkpoints and observer. `B` is the batch, `M` the
/// model.
///
/// The loss is a function of model and batch, so a trainer works with any model. It prints nothing:
/// use a [`TrainObserver`] to report progress.
///
/// A run in a [`RunFolder`] can be stopped and resumed at any step with the same bits: N + M steps
/// give the same weights, moments and losses as N steps, saving, loading and M steps. Randomness
/// (dropout) depends on seed and step only, data sources on their saved position, and nothing on
/// the number of threads.
///
/// After a run the model holds its **last** weights, or, after early stopping, the **best** ones,
/// as the folder does ([`Trainer::restore_best`], [`TrainReport::held`]).
///
/// # Examples
/// ```
/// use std::ops::ControlFlow;
/// use loquat::nn::{Embedding, Linear};
/// use loquat::training::data::{Batch, RandomWindows, SequentialWindows, TokenStream};
/// use loquat::training::{AdamW, Existing, Optimizer, RunFolder, Schedule, TrainEvent, Trainer};
/// use loquat::{Result, Rng, Tensor, ops};
///
/// /// Predicts the next token from the last one only.
/// struct Bigram { embedding: Embedding, head: Linear }
/// loquat::module!(Bigram { embedding, head });
///
/// fn loss(model: &Bigram, batch: &Batch) -> Result<Tensor> {
///     let hidden = model.embedding.forward(&batch.input_ids)?;
///     let labels = batch.labels.as_ref().expect("windows have labels");
///     ops::cross_entropy(&model.head.forward(&hidden)?, labels)
/// }
///
/// let mut rng = Rng::seed(1);
/// let embedding = Embedding::init(5, 8, 0.1, &mut rng)?;
/// let mut model = Bigram { embedding, head: Linear::init(8, 5, true, &mut rng)? };
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
    /// The intervals between validations, as set by `validate` and `validate_by`.
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

/// The result of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainReport {
    /// The number of steps done, including those before resuming.
    pub steps: u64,
    /// Why the run ended.
    pub stop: TrainEnd,
    /// The step whose weights the model holds: that of [`TrainReport::best`] if the best weights
    /// were restored, otherwise the last.
    pub held: u64,
    /// The best validation, if there was any.
    pub best: Option<Best>,
    /// Losses, learning rates and speed by step.
    pub history: History,
}

/// The position of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters {
    /// Steps done.
    step: u64,
    /// Epochs done.
    epoch: u64,
    best: Option<Best>,
    /// Validations since the best one.
    stale: u64,
    /// Sums since the last row of the history.
    pending: Pending,
    /// Seconds spent before the run was resumed.
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
    /// Returns a trainer for a number of steps, including those before resuming.
    pub fn steps(steps: u64) -> Self {
        Self::new(Budget::Steps(steps))
    }

    /// Returns a trainer for a number of epochs, including those before resuming.
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

    /// Sets the seed of dropout. Default: 0.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the precision of matrix products in training and validation. Default: f32. In
    /// [`Precision::Bf16`] weights, sums, norms, losses and moments stay in f32.
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Sets the number of batches per step (gradient accumulation). Gradients are averaged by
    /// labels, as if they were of one batch. Default: 1.
    pub fn accumulate(self, batches: usize) -> Self {
        Self { accumulate: batches, ..self }
    }

    /// Clips gradients to this norm ([`clip_grad_norm`](crate::training::clip_grad_norm)). Default:
    /// no clipping.
    pub fn clip_grad_norm(self, max_norm: f64) -> Self {
        Self { max_norm: Some(max_norm), ..self }
    }

    /// Sets the learning rate schedule. Default: constant.
    pub fn schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Validates every `every` steps and at the end, by the mean loss over all batches of an epoch
    /// of `source`.
    pub fn validate(mut self, source: &'a mut dyn BatchSource<Batch = B>, every: u64) -> Self {
        self.validate_every.push(every);
        Self { validation: Some(source), ..self }
    }

    /// Validates every `every` steps and at the end, by metrics that are saved in the history and
    /// sent to the observer. Can be combined with [`Trainer::validate`], with the same `every`.
    /// `measure` runs without gradients and dropout.
    ///
    /// # Examples
    /// ```
    /// use loquat::nn::Linear;
    /// use loquat::training::{Goal, Trainer};
    /// # use loquat::training::data::Batch;
    ///
    /// let accuracy = |_: &Linear| 0.75; // computed on a test set
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

    /// Sets the metric that decides which weights are best: for early stopping, for the weights in
    /// the folder, and for [`Trainer::restore_best`]. `metric` is a name returned by
    /// [`Trainer::validate_by`], or `val_loss`. Default: the lowest `val_loss`.
    pub fn best_by(self, metric: impl Into<String>, goal: Goal) -> Self {
        Self { watch: Watch { metric: metric.into(), goal }, ..self }
    }

    /// Stops the run after `patience` validations in a row without improvement. The model then
    /// holds the best weights ([`Trainer::restore_best`]). Default: no early stopping.
    pub fn early_stopping(self, patience: u64) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Sets whether the model holds the best weights by validation at the end of the run, for
    /// whatever reason it ends, rather than the last ones. The last checkpoint in the folder has
    /// the last weights in either case. Without a folder the best weights are kept in memory, in
    /// addition to those of the model. Default: true with [`Trainer::early_stopping`], otherwise
    /// false.
    pub fn restore_best(self, restore: bool) -> Self {
        Self { restore_best: Some(restore), ..self }
    }

    /// Saves model, history and checkpoints in a folder. A checkpoint is written at least at the
    /// end. Default: nothing is saved.
    pub fn folder(self, folder: RunFolder<'a>) -> Self {
        Self { folder: Some(folder), ..self }
    }

    /// Writes a checkpoint every `every` steps. Default: only at the end.
    pub fn save_every(self, every: u64) -> Self {
        Self { save_every: Some(every), ..self }
    }

    /// Adds a row to the history every `every` steps and at every validation. Default: 10.
    pub fn log_every(self, every: u64) -> Self {
        Self { log_every: every, ..self }
    }

    /// Sets the observer, which receives events and can stop the run.
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
            return Err(Error::argument("validate every", format!("{first}, the interval set first"), last));
        }
        let watches = self.watch != Watch::default();
        for (name, asked) in [
            ("early_stopping", self.patience.is_some()),
            ("restore_best", self.restore_best == Some(true)),
            ("best_by", watches),
        ] {
            if asked && self.validate_every.is_empty() {
                return Err(Error::argument(name, "validation data or metrics (`validate`, `validate_by`)", "neither"));
            }
        }
        if self.validation.is_none() && !self.validate_every.is_empty() && !watches {
            let expected = "the name of a metric, because there are no validation data";
            return Err(Error::argument("best_by", expected, VAL_LOSS));
        }
        if self.save_every.is_some() && self.folder.is_none() {
            return Err(Error::argument("save_every", "a folder", "none"));
        }
        Ok(())
    }

    fn notify(&mut self, run: &mut ActiveRun, event: TrainEvent<'_>) {
        if let Some(observer) = &mut self.observer {
            run.asked_to_stop |= observer.on_event(&event).is_break();
        }
    }

    /// Trains `model` on the batches of `train`; `loss` returns the mean loss of a batch.
    /// Afterwards the model holds the weights of [`TrainReport::held`].
    ///
    /// Each step runs inside [`team`](crate::kernels::parallel::team) and
    /// [`train_mode`](crate::nn::train_mode); validation runs without gradients and dropout.
    ///
    /// # Errors
    /// - [`Error::NotFinite`] if a loss or gradient is not finite, with the number of the step. The
    ///   model is unchanged by that step and nothing is saved.
    /// - [`Error::Argument`] for settings that contradict each other, for an epoch without batches
    ///   (for example, fewer examples than a batch with `drop_last`), for a folder in which another
    ///   process trains, and for a checkpoint of a run with other settings.
    /// - The errors of `loss`, the validation, the data sources and the folder.
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
        let mut run = self.open(model, optimizer, train)?;
        let total_steps = self.total_steps(train);
        let step = Step { seed: self.seed, precision: self.precision, max_norm: self.max_norm, loss: &loss };
        let start = TrainEvent::Start { step: run.progress.step, total_steps };
        self.notify(&mut run, start);
        // A source at the end of an epoch has returned the batches of that epoch.
        let (mut batches_seen, mut first) = (run.progress.step > 0 || train.state().position > 0, true);
        let reason = loop {
            if let Some(reason) = self.reason_to_stop(&run) {
                break reason;
            }
            let (batches, epoch_ended) = self.next_batches(train)?;
            if batches.is_empty() && !std::mem::replace(&mut batches_seen, false) {
                return Err(Error::argument("training data", "at least one batch in an epoch", "none"));
            }
            if !batches.is_empty() {
                batches_seen = true;
                let begun = Instant::now();
                optimizer.set_lr_factor(self.schedule.factor(run.progress.step));
                let StepResult { loss: mean_loss, grad_norm, without_gradient } =
                    step.run(run.progress.step, model, optimizer, &batches, std::mem::take(&mut first))?;
                let tokens = batches.iter().map(BatchSize::n_tokens).sum();
                drop(batches);
                let seconds = begun.elapsed().as_secs_f64().max(1e-9);
                run.progress.step += 1;
                run.progress.add(mean_loss, tokens, seconds);
                let step_number = run.progress.step;
                let in_epoch = match train.batches_per_epoch() {
                    _ if epoch_ended => 1.0,
                    Some(batches) => train.state().position as f64 / batches.max(1) as f64,
                    None => 0.0,
                };
                let event = TrainEvent::Step {
                    step: step_number,
                    total_steps,
                    epoch: run.progress.epoch as f64 + in_epoch,
                    loss: mean_loss,
                    lr: optimizer.lr(),
                    grad_norm,
                    tokens,
                    tokens_per_second: tokens as f64 / seconds,
                };
                self.notify(&mut run, event);
                if !without_gradient.is_empty() {
                    self.notify(&mut run, TrainEvent::WithoutGradient { step: step_number, paths: &without_gradient });
                }
                let last = Row {
                    epoch: train.batches_per_epoch().map(|_| run.progress.epoch as f64 + in_epoch),
                    lr: Some(optimizer.lr()),
                    grad_norm: Some(grad_norm),
                    ..Row::at(step_number)
                };
                if self.validate_every.first().is_some_and(|every| step_number.is_multiple_of(*every)) {
                    let row = self.validate_now(model, &loss, &mut run, last, true)?;
                    run.log(row);
                } else if step_number.is_multiple_of(self.log_every) {
                    run.log(last);
                } else {
                    run.unlogged = Some(last);
                }
            }
            if epoch_ended {
                run.progress.epoch += 1;
                let event = TrainEvent::Epoch { step: run.progress.step, epoch: run.progress.epoch };
                self.notify(&mut run, event);
            }
            let due = self.save_every.is_some_and(|every| run.progress.step.is_multiple_of(every));
            if due && self.reason_to_stop(&run).is_none() {
                self.save(model, optimizer, train, &mut run)?;
            }
        };
        if reason == TrainEnd::Finished {
            self.finish(model, &loss, &mut run)?;
        }
        self.save(model, optimizer, train, &mut run)?;
        let held = self.hold(model, &run)?;
        let step = run.progress.step;
        self.notify(&mut run, TrainEvent::End { step, reason });
        Ok(TrainReport { steps: step, stop: reason, held, best: run.progress.best, history: run.history })
    }

    /// Whether the model holds the best weights at the end.
    fn restores(&self) -> bool {
        self.restore_best.unwrap_or(self.patience.is_some())
    }

    /// Gives the model its final weights and returns their step.
    fn hold(&self, model: &mut M, run: &ActiveRun) -> Result<u64>
    where
        M: Module,
    {
        let last = run.progress.step;
        let Some(best) = run.progress.best.filter(|best| self.restores() && best.step != last) else {
            return Ok(last);
        };
        match (&self.folder, &run.kept) {
            (Some(folder), _) => folder.load_model(model)?,
            (None, Some(kept)) => kept.put_back(model)?,
            (None, None) => unreachable!("without a folder the best weights are kept"),
        }
        Ok(best.step)
    }

    /// Begins a new run, or resumes that of the last checkpoint in the folder.
    fn open<S: BatchSource<Batch = B> + ?Sized>(
        &self,
        model: &mut M,
        optimizer: &mut Optimizer,
        train: &mut S,
    ) -> Result<ActiveRun>
    where
        M: Module,
    {
        let mut run = ActiveRun {
            progress: Counters::default(),
            history: History::default(),
            began: Instant::now(),
            saved: None,
            unlogged: None,
            asked_to_stop: false,
            kept: None,
            _lock: None,
        };
        let Some(folder) = &self.folder else { return Ok(run) };
        let (lock, checkpoint) = folder.open()?;
        run._lock = Some(lock);
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
                let expected = format!("`{}` ({:?}), as in {}", state.watch.metric, state.watch.goal, path.display());
                let found = format!("`{}` ({:?})", self.watch.metric, self.watch.goal);
                return Err(Error::argument("best_by", expected, found));
            }
            train.restore(&state.data)?;
            folder.put_best_back(&path)?;
            state.history.into_iter().for_each(|row| run.history.push(row));
            run.saved = Some(state.progress.step);
            run.progress = state.progress;
        }
        folder.write_files()?;
        Ok(run)
    }

    fn reason_to_stop(&self, run: &ActiveRun) -> Option<TrainEnd> {
        let Counters { step, epoch, stale, .. } = run.progress;
        let spent = match self.budget {
            Budget::Steps(steps) => step >= steps,
            Budget::Epochs(epochs) => epoch >= epochs,
        };
        if run.asked_to_stop {
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

    /// Reads the batches of a step, and returns whether the epoch ended after them.
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

    /// Validates and adds the results to the row; only `scheduled` validations count for early
    /// stopping.
    fn validate_now(
        &mut self,
        model: &M,
        loss: &(impl Fn(&M, &B) -> Result<Tensor> + Sync),
        run: &mut ActiveRun,
        row: Row,
        scheduled: bool,
    ) -> Result<Row>
    where
        M: Module + Sync,
        B: BatchSize + Send + Sync,
    {
        let step = run.progress.step;
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
        let best = run.progress.best.is_none_or(|best| self.watch.is_better(value, best.value));
        if best {
            run.progress.best = Some(Best { step, value });
            run.progress.stale = 0;
            match &self.folder {
                Some(folder) => folder.save_model(model)?,
                None => run.kept = self.restores().then(|| Kept::of(model)),
            }
        } else {
            run.progress.stale += u64::from(scheduled);
        }
        self.notify(run, TrainEvent::Validation { step, loss: val_loss, metrics: &metrics, best });
        Ok(metrics.into_iter().fold(Row { val_loss, ..row }, |row, (name, value)| row.with(name, value)))
    }

    /// Adds the validation and row of the last step, if they were not due at that step.
    fn finish(
        &mut self,
        model: &M,
        loss: &(impl Fn(&M, &B) -> Result<Tensor> + Sync),
        run: &mut ActiveRun,
    ) -> Result<()>
    where
        M: Module + Sync,
        B: BatchSize + Send + Sync,
    {
        let step = run.progress.step;
        let logged = run.history.rows().last().filter(|row| row.step == step);
        let row = run.unlogged.take().or(logged.cloned());
        let Some(mut row) = row.filter(|_| run.saved != Some(step)) else { return Ok(()) };
        if self.validate_every.first().is_some_and(|every| !step.is_multiple_of(*every)) {
            row = self.validate_now(model, loss, run, row, false)?;
        }
        run.log(row);
        Ok(())
    }

    /// Writes a checkpoint, unless there is one of this step.
    fn save<S: BatchSource<Batch = B> + ?Sized>(
        &mut self,
        model: &M,
        optimizer: &Optimizer,
        train: &S,
        run: &mut ActiveRun,
    ) -> Result<()>
    where
        M: Module,
    {
        let step = run.progress.step;
        let Some(folder) = self.folder.as_ref().filter(|_| run.saved != Some(step)) else { return Ok(()) };
        let mut progress = run.progress.clone();
        progress.seconds = run.seconds();
        let watch = self.watch.clone();
        let state = State::new(self.seed, self.accumulate, self.schedule, watch, train.state(), progress, &run.history);
        let path = folder.save_checkpoint(model, optimizer, &state)?;
        folder.save_history(&run.history)?;
        if self.validate_every.is_empty() {
            folder.save_model(model)?;
        }
        run.saved = Some(step);
        self.notify(run, TrainEvent::Saved { step, path: &path });
        Ok(())
    }
}

/// A run in progress.
struct ActiveRun {
    progress: Counters,
    history: History,
    /// When the run began or was resumed.
    began: Instant,
    /// The step of the last checkpoint.
    saved: Option<u64>,
    /// The row of the last step, if it is not in the history.
    unlogged: Option<Row>,
    asked_to_stop: bool,
    /// The best weights, if they are to be restored and no folder has them.
    kept: Option<Kept>,
    /// Locks the folder.
    _lock: Option<Lock>,
}

impl ActiveRun {
    /// Adds a row to the history, with the means since the last one.
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

    /// The time of the run in seconds, including that before resuming.
    fn seconds(&self) -> f64 {
        self.progress.seconds + self.began.elapsed().as_secs_f64()
    }
}

impl Counters {
    fn add(&mut self, loss: f64, tokens: usize, seconds: f64) {
        self.pending.steps += 1;
        self.pending.loss += loss;
        self.pending.tokens += tokens as u64;
        self.pending.seconds += seconds;
    }
}
