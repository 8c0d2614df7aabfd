//! Whole runs of a tiny model: resumed, accumulated, stopped, failed.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::nn::{Dropout, Embedding, Linear};
use crate::ops;
use crate::random::Rng;
use crate::training::data::{Batch, DataState, RandomWindows, SequentialWindows, TokenStream};
use crate::training::{AdamW, ParameterGroup};

struct Bigram {
    embedding: Embedding,
    dropout: Dropout,
    head: Linear,
}
crate::module!(Bigram { embedding, dropout, head });

fn model() -> Bigram {
    let mut rng = Rng::seed(3);
    Bigram {
        embedding: Embedding::init(7, 8, 0.5, &mut rng).unwrap(),
        dropout: Dropout::new(0.3),
        head: Linear::init(8, 7, true, &mut rng).unwrap(),
    }
}

fn loss(model: &Bigram, batch: &Batch) -> Result<Tensor> {
    let hidden = model.dropout.forward(&model.embedding.forward(&batch.input_ids)?)?;
    ops::cross_entropy(&model.head.forward(&hidden)?, batch.labels.as_ref().unwrap())
}

fn optimizer() -> Optimizer {
    let rule = AdamW { lr: 0.05, weight_decay: 0.1, ..AdamW::default() };
    Optimizer::new(rule).unwrap().group(ParameterGroup::biases_and_norms().weight_decay(0.0)).unwrap()
}

fn text(len: u32) -> TokenStream {
    TokenStream::from_ids((0..len).map(|i| (i * i + i / 7) % 7).collect())
}

/// 13 windows in 4 batches per epoch: with 3 batches per step, epochs end within a step.
fn windows() -> SequentialWindows {
    SequentialWindows::new(text(100), 8, 4).unwrap().shuffle(5)
}

fn validation() -> SequentialWindows {
    SequentialWindows::new(text(40), 8, 4).unwrap()
}

fn values(model: &Bigram) -> Vec<Vec<u32>> {
    model.parameters().iter().map(|(_, p)| p.tensor().data().iter().map(|x| x.to_bits()).collect()).collect()
}

fn last(folder: &Path) -> PathBuf {
    RunFolder::new(folder).last_checkpoint().unwrap().unwrap()
}

/// Returns the history without times.
fn without_times(history: &History) -> Vec<Row> {
    let timeless = |row: &Row| Row { tokens_per_second: None, seconds: None, ..row.clone() };
    history.rows().iter().map(timeless).collect()
}

/// Runs up to `steps` in `folder`, resuming if possible.
fn run(folder: &Path, steps: u64, source: &mut dyn BatchSource<Batch = Batch>) -> (Bigram, TrainReport) {
    let (mut model, mut validation) = (model(), validation());
    let report = Trainer::steps(steps)
        .seed(9)
        .accumulate(3)
        .clip_grad_norm(0.5)
        .schedule(Schedule::cosine(30).warmup(4).min_factor(0.1))
        .validate(&mut validation, 5)
        .log_every(1)
        .folder(RunFolder::new(folder).existing(Existing::ResumeOrBegin))
        .run(&mut model, &mut optimizer(), source, loss)
        .unwrap();
    (model, report)
}

#[test]
fn a_resumed_run_goes_on_bit_for_bit() {
    let random = || RandomWindows::new(text(100), 8, 4, 5).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    for endless in [false, true] {
        let source = || -> Box<dyn BatchSource<Batch = Batch>> {
            if endless { Box::new(random()) } else { Box::new(windows()) }
        };
        let (whole, report) = run(&a, 25, &mut *source());
        assert_eq!((report.steps, report.stop), (25, TrainEnd::Finished));
        for stop in [1, 4, 5, 13, 25] {
            let (part, first) = run(&b, stop, &mut *source());
            assert!(stop == 25 || values(&part) != values(&whole));
            assert_eq!(first.steps, stop);
            let (resumed, second) = run(&b, 25, &mut *source());
            assert_eq!(values(&resumed), values(&whole), "stopped after {stop}");
            assert_eq!(second.best, report.best);
            let losses = |report: &TrainReport| report.history.column("loss");
            assert_eq!(losses(&second), losses(&report));
            let bytes = |folder: &Path, name: &str| std::fs::read(last(folder).join(name)).unwrap();
            for name in ["model.safetensors", "optimizer.safetensors"] {
                assert_eq!(bytes(&b, name), bytes(&a, name), "{name}, stopped after {stop}");
            }
            if stop % 5 == 0 {
                assert_eq!(without_times(&second.history), without_times(&report.history));
                let best = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
                assert_eq!(best(&b), best(&a));
            }
            std::fs::remove_dir_all(&b).unwrap();
        }
        std::fs::remove_dir_all(&a).unwrap();
    }
}

#[test]
fn threads_do_not_change_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (model, _) = pool.install(|| run(&folder.path().join(threads.to_string()), 8, &mut windows()));
        values(&model)
    };
    assert_eq!(on(1), on(3));
}

/// Two sequences of unequal length, in one batch or in two.
struct Halves {
    split: bool,
    position: u64,
}

impl BatchSource for Halves {
    type Batch = Batch;

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let stream = text(30);
        let mut windows = match (self.split, self.position % 2) {
            (false, _) => SequentialWindows::new(stream, 8, 4)?,
            (true, 0) => SequentialWindows::new(stream.slice(0, 17)?, 8, 4)?,
            (true, _) => SequentialWindows::new(stream.slice(16, 14)?, 8, 4)?,
        };
        self.position += 1;
        windows.next_batch()
    }

    fn batches_per_epoch(&self) -> Option<usize> {
        None
    }

    fn state(&self) -> DataState {
        DataState { epoch: 0, position: self.position, settings: Vec::new() }
    }

    fn restore(&mut self, state: &DataState) -> Result<()> {
        self.position = state.position;
        Ok(())
    }
}

#[test]
fn accumulated_gradients_are_those_of_the_big_batch() {
    let train = |split: bool| {
        let mut model = model();
        model.dropout.p = 0.0;
        let mut source = Halves { split, position: 0 };
        let trainer = Trainer::steps(10).accumulate(if split { 2 } else { 1 }).log_every(1);
        let report = trainer.run(&mut model, &mut optimizer(), &mut source, loss).unwrap();
        (model, report)
    };
    let ((one, whole), (two, halves)) = (train(false), train(true));
    for (a, b) in whole.history.rows().iter().zip(halves.history.rows()) {
        assert!((a.loss.unwrap() - b.loss.unwrap()).abs() < 1e-4, "{a:?} {b:?}");
        assert!((a.grad_norm.unwrap() - b.grad_norm.unwrap()).abs() < 1e-4);
    }
    for ((_, a), (_, b)) in one.parameters().iter().zip(two.parameters()) {
        assert!(a.tensor().data().iter().zip(b.tensor().data()).all(|(a, b)| (a - b).abs() < 1e-3));
    }
}

#[test]
fn epochs_are_counted_and_rows_are_logged_when_due() {
    let events = RefCell::new(Vec::new());
    let mut model = model();
    let mut validation = validation();
    let report = Trainer::epochs(3)
        .accumulate(3)
        .log_every(4)
        .validate(&mut validation, 3)
        .observe(&mut |event: &TrainEvent<'_>| {
            let name = match event {
                TrainEvent::Start { total_steps, .. } => format!("start of {total_steps:?}"),
                TrainEvent::Step { step, epoch, .. } => format!("step {step} at {epoch:.2}"),
                TrainEvent::WithoutGradient { paths, .. } => paths.join(" "),
                TrainEvent::Epoch { epoch, .. } => format!("epoch {epoch}"),
                TrainEvent::Validation { step, .. } => format!("validation {step}"),
                TrainEvent::Saved { .. } => "saved".into(),
                TrainEvent::End { step, reason } => format!("end {step} {reason:?}"),
            };
            events.borrow_mut().push(name);
            ControlFlow::Continue(())
        })
        .run(&mut model, &mut optimizer(), &mut windows(), loss)
        .unwrap();
    let expected = [
        "start of Some(6)",
        "step 1 at 0.75",
        "step 2 at 1.00",
        "epoch 1",
        "step 3 at 1.75",
        "validation 3",
        "step 4 at 2.00",
        "epoch 2",
        "step 5 at 2.75",
        "step 6 at 3.00",
        "validation 6",
        "epoch 3",
        "end 6 Finished",
    ];
    assert_eq!(*events.borrow(), expected);
    let steps: Vec<u64> = report.history.rows().iter().map(|row| row.step).collect();
    assert_eq!(steps, [3, 4, 6]);
    assert_eq!(report.history.column("val_loss").len(), 2);
}

#[test]
fn parameters_without_a_gradient_are_reported_once() {
    let mut reported = Vec::new();
    let mut model = (model(), model());
    struct Two<'m>(&'m mut (Bigram, Bigram));
    impl Module for Two<'_> {
        fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m crate::nn::Parameter)) {
            self.0.0.visit(path, f);
            self.0.1.visit("unused", f);
        }
        fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut crate::nn::Parameter)) {
            self.0.0.visit_mut(path, f);
            self.0.1.visit_mut("unused", f);
        }
    }
    Trainer::steps(3)
        .observe(&mut |event: &TrainEvent<'_>| {
            if let TrainEvent::WithoutGradient { step, paths } = event {
                reported.push((*step, paths.to_vec()));
            }
            ControlFlow::Continue(())
        })
        .run(&mut Two(&mut model), &mut optimizer(), &mut windows(), |model, batch| loss(&model.0.0, batch))
        .unwrap();
    let paths = ["unused.embedding.weight", "unused.head.weight", "unused.head.bias"].map(String::from);
    assert_eq!(reported, [(1, paths.to_vec())]);
}

#[test]
fn parameters_and_moments_stay_in_their_memory() {
    let (mut model, mut optimizer) = (model(), optimizer());
    let places = |model: &Bigram| -> Vec<*const f32> {
        model.parameters().iter().map(|(_, p)| p.tensor().data().as_ptr()).collect()
    };
    let before = places(&model);
    Trainer::steps(3).run(&mut model, &mut optimizer, &mut windows(), loss).unwrap();
    assert_eq!(places(&model), before, "a step writes in place");
}

#[test]
fn a_run_that_does_not_fit_changes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let with = |existing: Existing, config: &str, n_hidden: usize| {
        let mut rng = Rng::seed(3);
        let mut model = Bigram {
            embedding: Embedding::init(7, n_hidden, 0.5, &mut rng).unwrap(),
            dropout: Dropout::new(0.0),
            head: Linear::init(n_hidden, 7, true, &mut rng).unwrap(),
        };
        let folder = RunFolder::new(path).existing(existing).file("config.json", config);
        Trainer::steps(3).folder(folder).run(&mut model, &mut optimizer(), &mut windows(), loss)
    };
    with(Existing::Refuse, "8", 8).unwrap();
    let config = || std::fs::read_to_string(path.join("config.json")).unwrap();
    assert!(matches!(with(Existing::Resume, "9", 9), Err(Error::Load(_))));
    assert_eq!(config(), "8");
    std::fs::remove_dir_all(path.join("checkpoints")).unwrap();
    assert!(matches!(with(Existing::Refuse, "9", 9), Err(Error::Argument { .. })), "the folder contains a model");
    assert_eq!(config(), "8");
    with(Existing::Replace, "9", 9).unwrap();
    assert_eq!(config(), "9");
}

#[test]
fn the_last_step_is_validated_and_logged() {
    let (mut model, mut validation) = (model(), validation());
    let trainer = Trainer::steps(7).log_every(5).validate(&mut validation, 4);
    let report = trainer.run(&mut model, &mut optimizer(), &mut windows(), loss).unwrap();
    let rows: Vec<(u64, bool)> = report.history.rows().iter().map(|r| (r.step, r.val_loss.is_some())).collect();
    assert_eq!(rows, [(4, true), (5, false), (7, true)]);
    assert!(report.history.rows().iter().all(|row| row.loss.is_some() && row.lr.is_some()));
    let evaluated = evaluate(&model, &mut validation, &loss).unwrap().mean();
    assert_eq!(report.history.rows()[2].val_loss, evaluated);
}

#[test]
fn the_best_weights_are_the_folders_and_the_last_ones_the_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let (mut model, mut validation) = (model(), validation());
    let report = Trainer::steps(1000)
        .validate(&mut validation, 2)
        .early_stopping(3)
        .folder(RunFolder::new(folder.path()).file("config.json", "{}"))
        .run(&mut model, &mut optimizer(), &mut windows(), loss)
        .unwrap();
    assert_eq!(report.stop, TrainEnd::EarlyStopping);
    let best = report.best.unwrap();
    assert_eq!(report.steps, best.step + 6);
    let mut other = self::model();
    Checkpoint::open(folder.path()).unwrap().load_into(&mut other).unwrap();
    assert_eq!(evaluate(&other, &mut validation, &loss).unwrap().mean(), Some(best.value));
    assert_eq!((values(&other), best.step), (values(&model), report.held));
    let checkpoint = last(folder.path());
    Checkpoint::open(&checkpoint).unwrap().load_into(&mut other).unwrap();
    assert_ne!(values(&other), values(&model), "the checkpoint has the last weights");
    Checkpoint::open(checkpoint.join("best.safetensors")).unwrap().load_into(&mut other).unwrap();
    assert_eq!(values(&other), values(&model));
    for path in [folder.path(), &checkpoint] {
        assert_eq!(std::fs::read_to_string(path.join("config.json")).unwrap(), "{}");
    }
    let history = History::open(folder.path().join("history.csv")).unwrap();
    assert_eq!(history, report.history);
}

#[test]
fn the_model_holds_the_best_weights_after_early_stopping_by_default() {
    let train = |steps: u64, restore: Option<bool>, patience: Option<u64>| {
        let (mut model, mut validation) = (model(), validation());
        let mut trainer = Trainer::steps(steps).validate(&mut validation, 2);
        if let Some(patience) = patience {
            trainer = trainer.early_stopping(patience);
        }
        if let Some(restore) = restore {
            trainer = trainer.restore_best(restore);
        }
        let report = trainer.run(&mut model, &mut optimizer(), &mut windows(), loss).unwrap();
        (evaluate(&model, &mut self::validation(), &loss).unwrap().mean().unwrap(), report)
    };
    let (held, report) = train(1000, None, Some(3));
    let best = report.best.unwrap();
    assert_eq!((held, report.held), (best.value, best.step));
    assert_eq!((report.stop, report.held + 6), (TrainEnd::EarlyStopping, report.steps));
    let steps = report.steps;
    let (held, report) = train(1000, Some(false), Some(3));
    assert!(held > best.value && report.held == steps);
    let (held, report) = train(steps, None, None);
    assert!(held > best.value && report.held == steps, "the last weights by default");
    let (held, report) = train(steps, Some(true), None);
    assert_eq!((held, report.held), (report.best.unwrap().value, report.best.unwrap().step));
}

#[test]
fn any_number_of_a_validation_may_decide() {
    let (mut model, scores) = (model(), RefCell::new([0.1, 0.7, 0.4, 0.7, 0.2].into_iter()));
    let mut reported = Vec::new();
    let report = Trainer::steps(100)
        .validate_by(3, |_: &Bigram| Ok([("f1", scores.borrow_mut().next().unwrap()), ("other", f64::NAN)]))
        .best_by("f1", Goal::Highest)
        .early_stopping(3)
        .observe(&mut |event: &TrainEvent<'_>| {
            if let TrainEvent::Validation { step, loss: None, metrics, best } = event {
                reported.push((*step, metrics[0].1, *best));
            }
            ControlFlow::Continue(())
        })
        .run(&mut model, &mut optimizer(), &mut windows(), loss)
        .unwrap();
    let expected = [(3, 0.1, true), (6, 0.7, true), (9, 0.4, false), (12, 0.7, false), (15, 0.2, false)];
    assert_eq!(reported, expected);
    assert_eq!((report.stop, report.steps, report.held), (TrainEnd::EarlyStopping, 15, 6));
    assert_eq!(report.best, Some(Best { step: 6, value: 0.7 }));
    assert_eq!(report.history.column("f1"), expected.map(|(step, f1, _)| (step, f1)));
    // Together with validation data, at the same steps; a metric that is not finite is an error.
    let run = |every: u64, value: f64| {
        let mut validation = validation();
        Trainer::steps(4)
            .validate(&mut validation, 2)
            .validate_by(every, |_: &Bigram| Ok([("f1", value)]))
            .best_by("f1", Goal::Highest)
            .run(&mut self::model(), &mut optimizer(), &mut windows(), loss)
    };
    let report = run(2, 0.5).unwrap();
    assert_eq!((report.history.column("val_loss").len(), report.history.column("f1").len()), (2, 2));
    assert!(run(3, 0.5).unwrap_err().to_string().starts_with("validate every: expected 2"));
    assert!(matches!(run(2, f64::NAN), Err(Error::NotFinite { .. })));
}

#[test]
fn training_on_data_without_a_batch_is_an_error() {
    use crate::training::data::{DataLoader, Example, PadCollator};
    let loader = |n: usize| {
        let examples = (0..n).map(|i| Example::causal(&[i as u32 % 7, 1, 2])).collect::<Vec<_>>();
        DataLoader::new(examples, PadCollator::new(0), 100).unwrap().drop_last()
    };
    let run =
        |trainer: Trainer<'_, Batch, Bigram>, n| trainer.run(&mut model(), &mut optimizer(), &mut loader(n), loss);
    for trainer in [Trainer::epochs(1), Trainer::epochs(3), Trainer::steps(2)] {
        let error = run(trainer, 3).unwrap_err().to_string();
        assert!(error.contains("training data: expected at least one batch in an epoch, found none"), "{error}");
    }
    // An epoch whose batches were all used in the step before has none left, and is not empty.
    assert_eq!(run(Trainer::epochs(2).accumulate(2), 200).unwrap().steps, 2);
    assert_eq!(run(Trainer::epochs(2), 100).unwrap().steps, 2);
}

#[test]
fn two_runs_in_one_folder_are_refused_and_the_error_names_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let run_folder = || RunFolder::new(folder.path()).existing(Existing::Replace);
    let mut messages = Vec::new();
    Trainer::steps(2)
        .folder(run_folder())
        .save_every(1)
        .observe(&mut |event: &TrainEvent<'_>| {
            if let TrainEvent::Step { .. } = event {
                let second = Trainer::steps(1).folder(run_folder());
                let error = second.run(&mut model(), &mut optimizer(), &mut windows(), loss).unwrap_err();
                messages.extend([error.to_string(), run_folder().check().unwrap_err().to_string()]);
            }
            ControlFlow::Continue(())
        })
        .run(&mut model(), &mut optimizer(), &mut windows(), loss)
        .unwrap();
    assert_eq!(messages.len(), 4);
    for message in messages {
        assert!(message.contains("expected a folder in which no other run trains"), "{message}");
        assert!(message.contains(&format!("process {} in", std::process::id())), "{message}");
    }
    assert!(last(folder.path()).ends_with("step-00000002"));
    run_folder().check().unwrap();
}

#[test]
fn resuming_without_a_checkpoint_is_an_error_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let run = |existing| {
        let trainer = Trainer::steps(2).folder(RunFolder::new(&path).existing(existing));
        trainer.run(&mut model(), &mut optimizer(), &mut windows(), loss)
    };
    let error = run(Existing::Resume).unwrap_err().to_string();
    assert!(error.contains("expected a folder with a checkpoint"), "{error}");
    assert!(!path.exists());
    assert_eq!(run(Existing::ResumeOrBegin).unwrap().steps, 2);
    assert_eq!(run(Existing::Resume).unwrap().steps, 2);
}

#[test]
fn a_resumed_run_holds_the_best_weights_of_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let scores = RefCell::new([0.5, 0.6, 0.1, 0.1].into_iter());
    let run = |steps: u64| {
        let mut model = model();
        let report = Trainer::steps(steps)
            .validate_by(2, |_: &Bigram| Ok([("f1", scores.borrow_mut().next().unwrap())]))
            .best_by("f1", Goal::Highest)
            .restore_best(true)
            .folder(RunFolder::new(folder.path()).existing(Existing::ResumeOrBegin))
            .run(&mut model, &mut optimizer(), &mut windows(), loss)
            .unwrap();
        (values(&model), report)
    };
    let (best, report) = run(6);
    assert_eq!((report.held, report.steps), (4, 6));
    // What a run that was killed after its last checkpoint left: better weights of a step that the
    // resumed run does not reach.
    crate::checkpoint::save_module(folder.path().join("model.safetensors"), &model()).unwrap();
    let (resumed, report) = run(8);
    assert_eq!((report.held, report.steps), (4, 8));
    assert_eq!(resumed, best);
    let other = Trainer::steps(9).folder(RunFolder::new(folder.path()).existing(Existing::Resume));
    let error = other.run(&mut model(), &mut optimizer(), &mut windows(), loss).unwrap_err().to_string();
    assert!(error.contains("best_by: expected `f1` (Highest)"), "{error}");
}

#[test]
fn an_observer_stops_the_run_which_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let until = |stop: u64, resume: bool| {
        let mut model = model();
        let existing = if resume { Existing::Resume } else { Existing::Refuse };
        let report = Trainer::steps(12)
            .folder(RunFolder::new(folder.path()).existing(existing).keep(2))
            .save_every(4)
            .observe(&mut |event: &TrainEvent<'_>| match event {
                TrainEvent::Step { step, .. } if *step == stop => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
            .run(&mut model, &mut optimizer(), &mut windows(), loss);
        report.map(|report| (report.steps, report.stop))
    };
    assert_eq!(until(7, false).unwrap(), (7, TrainEnd::Observer));
    let error = until(9, false).unwrap_err().to_string();
    assert!(error.contains("`Existing::Resume` or `Existing::Replace`"), "{error}");
    assert_eq!(until(9, true).unwrap(), (9, TrainEnd::Observer));
    assert_eq!(until(99, true).unwrap(), (12, TrainEnd::Finished));
    assert_eq!(until(99, true).unwrap(), (12, TrainEnd::Finished), "nothing is left to do");
    let mut kept: Vec<_> = std::fs::read_dir(folder.path().join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["step-00000009", "step-00000012"]);
}

#[test]
fn a_loss_that_is_not_finite_names_the_step_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let calls = AtomicUsize::new(0);
        let mut model = model();
        let mut before = Vec::new();
        let error = Trainer::steps(12)
            .folder(RunFolder::new(folder.path()).existing(Existing::Replace))
            .save_every(5)
            .observe(&mut |event: &TrainEvent<'_>| {
                if let TrainEvent::Saved { path, .. } = event {
                    before = std::fs::read(path.join("model.safetensors")).unwrap();
                }
                ControlFlow::Continue(())
            })
            .run(&mut model, &mut optimizer(), &mut windows(), |model, batch| {
                let factor = if calls.fetch_add(1, Ordering::Relaxed) == 5 { bad } else { 1.0 };
                loss(model, batch)?.mul(&Tensor::scalar(factor))
            })
            .unwrap_err();
        assert!(error.to_string().starts_with("loss in step 6: expected a finite number"), "{error}");
        assert!(last(folder.path()).ends_with("step-00000005"));
        assert_eq!(std::fs::read(last(folder.path()).join("model.safetensors")).unwrap(), before);
        let mut saved = self::model();
        Checkpoint::open(last(folder.path())).unwrap().load_into(&mut saved).unwrap();
        assert_eq!(values(&saved), values(&model), "the model is unchanged by the step");
    }
}

#[test]
fn a_gradient_that_is_not_finite_names_the_step() {
    let mut model = model();
    let before = values(&model);
    let error = Trainer::steps(2)
        .run(&mut model, &mut optimizer(), &mut windows(), |model, batch| {
            // 0 · 1e30 · 3e38 is 0, but its gradient, 0 · (1e30 · 3e38), is NaN.
            let zero = loss(model, batch)?.mul(&Tensor::scalar(0.0))?;
            zero.mul(&Tensor::scalar(1e30))?.mul(&Tensor::scalar(3e38))?.add(&loss(model, batch)?)
        })
        .unwrap_err();
    assert!(error.to_string().starts_with("gradient norm in step 1: "), "{error}");
    assert_eq!(values(&model), before);
}

#[test]
fn a_broken_checkpoint_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 3, &mut windows());
    let checkpoint = last(folder.path());
    let resume = |seed: u64, accumulate: usize| {
        Trainer::steps(5)
            .seed(seed)
            .accumulate(accumulate)
            .folder(RunFolder::new(folder.path()).existing(Existing::Resume))
            .run(&mut model(), &mut optimizer(), &mut windows(), loss)
    };
    for (seed, accumulate, word) in [(8, 3, "seed: expected 9"), (9, 2, "accumulate: expected 3")] {
        let message = resume(seed, accumulate).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
    for name in ["trainer.json", "optimizer.safetensors", "model.safetensors"] {
        let path = checkpoint.join(name);
        let whole = std::fs::read(&path).unwrap();
        for len in (0..whole.len()).step_by(37) {
            std::fs::write(&path, &whole[..len]).unwrap();
            let error = resume(9, 3).unwrap_err();
            assert!(matches!(&error, Error::Format { path: p, .. } if *p == path), "{name} {len}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(resume(9, 3), Err(Error::Io { .. } | Error::Format { .. })), "{name}");
        std::fs::write(&path, &whole).unwrap();
    }
    let state = std::fs::read_to_string(checkpoint.join("trainer.json")).unwrap();
    std::fs::write(checkpoint.join("trainer.json"), state.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert!(resume(9, 3).unwrap_err().to_string().contains("expected format 1, found 2"));
    std::fs::write(checkpoint.join("trainer.json"), state).unwrap();
    assert!(resume(9, 3).is_ok());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let steps = Cell::new(0);
    let error = Trainer::steps(1)
        .folder(RunFolder::new(file.join("run")))
        .observe(&mut |_: &TrainEvent<'_>| {
            steps.set(steps.get() + 1);
            ControlFlow::Continue(())
        })
        .run(&mut model(), &mut optimizer(), &mut windows(), loss)
        .unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!(steps.get(), 0);
}

#[test]
fn a_disk_that_fills_up_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let full = Cell::new(false);
    let train = |existing: Existing| {
        Trainer::steps(12)
            .folder(RunFolder::new(folder.path()).existing(existing).files(|path| {
                if full.get() { Err(Error::io(path, std::io::ErrorKind::StorageFull.into())) } else { Ok(()) }
            }))
            .save_every(4)
            .observe(&mut |event: &TrainEvent<'_>| {
                full.set(existing == Existing::Refuse && matches!(event, TrainEvent::Step { step: 5.., .. }));
                ControlFlow::Continue(())
            })
            .run(&mut model(), &mut optimizer(), &mut windows(), loss)
    };
    assert!(matches!(train(Existing::Refuse), Err(Error::Io { .. })));
    let names: Vec<_> = std::fs::read_dir(folder.path().join("checkpoints")).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing half-written is left");
    assert!(last(folder.path()).ends_with("step-00000004"));
    full.set(false);
    assert_eq!(train(Existing::Resume).unwrap().steps, 12);
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let cases: [(&str, Trainer<'_, Batch, Bigram>); 15] = [
        ("accumulate", Trainer::steps(1).accumulate(0)),
        ("log_every", Trainer::steps(1).log_every(0)),
        ("clip_grad_norm", Trainer::steps(1).clip_grad_norm(f64::NAN)),
        ("min_factor", Trainer::steps(1).schedule(Schedule::constant().min_factor(2.0))),
        ("early_stopping", Trainer::steps(1).early_stopping(1)),
        ("save_every: expected a number", Trainer::steps(1).save_every(0)),
        ("save_every: expected a folder", Trainer::steps(1).save_every(1)),
        ("patience", Trainer::steps(1).early_stopping(0)),
        ("steps", Trainer::steps(0)),
        ("epochs", Trainer::epochs(0)),
        ("restore_best", Trainer::steps(1).restore_best(true)),
        ("best_by", Trainer::steps(1).best_by("f1", Goal::Highest)),
        ("best_by", Trainer::steps(1).validate_by(1, |_| Ok([("f1", 0.5)]))),
        (
            "best_by: expected `f2`",
            Trainer::steps(1).validate_by(1, |_| Ok([("f1", 0.5)])).best_by("f2", Goal::Highest),
        ),
        ("names of metrics", Trainer::steps(1).validate_by(1, |_| Ok([("lr", 0.5)])).best_by("lr", Goal::Highest)),
    ];
    for (word, trainer) in cases {
        let error = trainer.run(&mut model(), &mut optimizer(), &mut windows(), loss).unwrap_err().to_string();
        assert!(error.starts_with(word), "{error}");
    }
    let mut endless = RandomWindows::new(text(40), 8, 2, 1).unwrap();
    let trainer = Trainer::steps(1).validate(&mut endless, 1);
    let error = trainer.run(&mut model(), &mut optimizer(), &mut windows(), loss).unwrap_err().to_string();
    assert!(error.contains("an endless one"), "{error}");
}

#[test]
fn rounded_products_follow_the_exact_ones() {
    let run = |precision: Precision| {
        let mut model = model();
        let trainer = Trainer::steps(20).seed(9).log_every(1).precision(precision);
        let report = trainer.run(&mut model, &mut optimizer(), &mut windows(), loss).unwrap();
        (report.history.rows().iter().map(|row| row.loss.unwrap()).collect::<Vec<_>>(), values(&model))
    };
    let ((exact, _), (rounded, weights)) = (run(Precision::F32), run(Precision::Bf16));
    for (exact, rounded) in exact.iter().zip(&rounded) {
        assert!((exact - rounded).abs() < 0.01 * exact, "{rounded}, not {exact}");
    }
    assert_eq!(run(Precision::Bf16), (rounded, weights), "the same bits again");
}
