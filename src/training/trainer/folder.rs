//! The folder of a run: its model, its history, and the checkpoints that it goes on from.
//!
//! ```text
//! out/
//!   config.json, tokenizer.json, …   by the caller's hooks
//!   model.safetensors                the best weights by validation; the last ones without validation
//!   history.csv
//!   checkpoints/
//!     step-00000500/                 the last state: a model folder too, and beside the model
//!       best.safetensors               the best weights so far, the file above by another name
//!       optimizer.safetensors          the moments
//!       trainer.json                   step, place in the data, best number, history
//! ```
//!
//! Both `out/` and each `step-…/` are folders that `transformers` opens.
//!
//! A kill at any instant loses nothing that was there before. Single files are replaced by
//! renaming. A checkpoint is several files that belong together, so it is made under a temporary
//! name, given to the disk, and renamed to a name that was not there before; only then are older
//! ones removed (they lose their name first). Whoever resumes takes the `step-…` of the highest
//! number, which is whole. The weights in `out/` may be of a later step than the last checkpoint: a
//! resumed run puts those back that were the best by then, and comes by the same step with the same
//! bits.
//!
//! A second run in the folder is refused as long as the first one trains (`lock`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Progress;
use super::best::Watch;
use super::lock::Lock;
use crate::atomic;
use crate::checkpoint::{Checkpoint, Pretrained, pretrained, save_module};
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::training::data::DataState;
use crate::training::history::{History, Row};
use crate::training::{Optimizer, Schedule};

const CHECKPOINTS: &str = "checkpoints";
const STEP: &str = "step-";
const MODEL: &str = crate::checkpoint::WEIGHTS;
const BEST: &str = "best.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "trainer.json";
const HISTORY: &str = "history.csv";

/// What to do with a run that the folder holds already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// An error, also for any other model: nothing is lost by mistake.
    #[default]
    Refuse,
    /// Go on from its last checkpoint; an error if there is none.
    Resume,
    /// Go on from its last checkpoint, or begin if there is none, over the weights that may be
    /// there: for a program that is started again until it is done.
    ResumeOrBegin,
    /// Remove its weights and checkpoints and begin anew.
    Replace,
}

/// Writes a file into a model folder.
type Hook<'a> = Box<dyn Fn(&Path) -> Result<()> + 'a>;

/// Where a run keeps its model and its state.
///
/// ```
/// use loquat::training::{Existing, RunFolder};
///
/// let folder = RunFolder::new("out/shakespeare").existing(Existing::Resume).file("note.txt", "trained on plays");
/// assert!(folder.last_checkpoint()?.is_none());
/// # Ok::<(), loquat::Error>(())
/// ```
pub struct RunFolder<'a> {
    path: PathBuf,
    existing: Existing,
    keep: usize,
    hooks: Vec<Hook<'a>>,
}

impl<'a> RunFolder<'a> {
    /// A folder, which is made if it is not there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), existing: Existing::Refuse, keep: 1, hooks: Vec::new() }
    }

    /// What to do with a run that is there already.
    pub fn existing(self, existing: Existing) -> Self {
        Self { existing, ..self }
    }

    /// How many of the last checkpoints to keep: 1 if not said, and at least 1.
    pub fn keep(self, checkpoints: usize) -> Self {
        Self { keep: checkpoints.max(1), ..self }
    }

    /// Writes the model's `config.json` into each model folder.
    pub fn config(self, model: &impl Pretrained) -> Self {
        let config = format!("{:#}\n", model.config_json());
        self.file(pretrained::CONFIG, config)
    }

    /// Writes a text file into each model folder.
    pub fn file(self, name: &str, content: impl Into<String>) -> Self {
        let (name, content) = (name.to_string(), content.into());
        self.files(move |folder| atomic::write_file(folder.join(&name), |file| file.write_all(content.as_bytes())))
    }

    /// Calls `write` with each model folder, to write more into it: the tokenizer, for example.
    pub fn files(mut self, write: impl Fn(&Path) -> Result<()> + 'a) -> Self {
        self.hooks.push(Box::new(write));
        self
    }

    /// The last checkpoint: a model folder with the run's state.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn last_checkpoint(&self) -> Result<Option<PathBuf>> {
        Ok(self.checkpoints()?.pop().map(|(_, path)| path))
    }

    /// The checkpoints by step.
    fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.path.join(CHECKPOINTS);
        let entries = match std::fs::read_dir(&folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| Error::io(&folder, e))?,
        };
        let mut checkpoints = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io(&folder, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(step) = name.strip_prefix(STEP).and_then(|step| step.parse().ok()) {
                checkpoints.push((step, path));
            }
        }
        checkpoints.sort();
        Ok(checkpoints)
    }

    /// Makes sure that a run may begin here, before anything is written.
    ///
    /// # Errors
    /// [`Error::Argument`] if another process trains in the folder, if it holds a run and that is
    /// to be refused, and if it holds no checkpoint and one is to be resumed; [`Error::Io`] if it
    /// cannot be read.
    pub fn check(&self) -> Result<()> {
        Lock::check(&self.path)?;
        self.check_found()
    }

    fn check_found(&self) -> Result<()> {
        let name = "folder of the run";
        match (self.existing, self.found()?.first()) {
            (Existing::Refuse, Some(path)) => {
                let expected = "one without a model (or say resume or replace)";
                Err(Error::argument(name, expected, path.display()))
            }
            (Existing::Resume, _) if self.last_checkpoint()?.is_none() => {
                let found = format!("none in {}", self.path.display());
                Err(Error::argument(name, "one with a checkpoint to resume from (or do not say resume)", found))
            }
            _ => Ok(()),
        }
    }

    /// The checkpoints and weights that the folder holds.
    fn found(&self) -> Result<Vec<PathBuf>> {
        let weights = Some(self.path.join(MODEL)).filter(|path| path.exists());
        Ok(self.checkpoints()?.into_iter().map(|(_, path)| path).chain(weights).collect())
    }

    /// Makes the folder ready and this run's own, and gives the checkpoint to go on from if there
    /// is one.
    pub(super) fn open(&self) -> Result<(Lock, Option<PathBuf>)> {
        // Nothing is made where nothing may begin.
        self.check()?;
        let folder = self.path.join(CHECKPOINTS);
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let lock = Lock::take(&self.path)?;
        self.check_found()?;
        if self.existing == Existing::Replace {
            self.found()?.iter().try_for_each(atomic::remove)?;
        }
        [&folder, &self.path].into_iter().try_for_each(atomic::remove_leftovers)?;
        Ok((lock, self.last_checkpoint()?))
    }

    /// Puts the weights back that were the best when a checkpoint was written.
    pub(super) fn put_best_back(&self, checkpoint: &Path) -> Result<()> {
        let best = checkpoint.join(BEST);
        if best.exists() { atomic::link(best, self.path.join(MODEL)) } else { Ok(()) }
    }

    /// The folder's own weights.
    pub(super) fn load_model(&self, model: &mut impl Module) -> Result<()> {
        Checkpoint::open(self.path.join(MODEL))?.load_into(model)
    }

    /// Writes what the caller adds into the folder itself. What cannot be written is better known before the first step than after
    /// the last; but nothing is written over the files of a run that does not fit.
    pub(super) fn write_files(&self) -> Result<()> {
        self.hooks.iter().try_for_each(|write| write(&self.path))
    }

    /// Replaces the folder's own weights.
    pub(super) fn save_model(&self, model: &impl Module) -> Result<()> {
        save_module(self.path.join(MODEL), model)
    }

    pub(super) fn save_history(&self, history: &History) -> Result<()> {
        atomic::write_file(self.path.join(HISTORY), |file| file.write_all(history.to_csv().as_bytes()))
    }

    /// Writes a checkpoint and removes those that are too many.
    pub(super) fn save_checkpoint(&self, model: &impl Module, optimizer: &Optimizer, state: &State) -> Result<PathBuf> {
        let path = self.path.join(CHECKPOINTS).join(format!("{STEP}{:08}", state.progress.step));
        if path.exists() {
            // Of the same step of the same run, so of the same bits: a new run begins without checkpoints.
            return Ok(path);
        }
        let json = serde_json::to_string_pretty(state).expect("finite numbers and names are JSON");
        atomic::write_folder(&path, |folder| {
            self.hooks.iter().try_for_each(|write| write(folder))?;
            save_module(folder.join(MODEL), model)?;
            if state.progress.best.is_some() {
                atomic::link(self.path.join(MODEL), folder.join(BEST))?;
            }
            optimizer.save(folder.join(OPTIMIZER))?;
            atomic::write_file(folder.join(STATE), |file| file.write_all(json.as_bytes()))
        })?;
        let checkpoints = self.checkpoints()?;
        let too_many = checkpoints.len().saturating_sub(self.keep);
        checkpoints[..too_many].iter().try_for_each(|(_, path)| atomic::remove(path))?;
        Ok(path)
    }
}

/// A checkpoint's model, optimizer and state.
pub(super) fn load_checkpoint(folder: &Path, model: &mut impl Module, optimizer: &mut Optimizer) -> Result<State> {
    let path = folder.join(STATE);
    let json = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let state: State =
        serde_json::from_slice(&json).map_err(|e| Error::format(&path, format!("expected a run's state: {e}")))?;
    if state.format != State::FORMAT {
        return Err(Error::format(&path, format!("expected format {}, found {}", State::FORMAT, state.format)));
    }
    optimizer.load(folder.join(OPTIMIZER), &*model)?;
    Checkpoint::open(folder)?.load_into(model)?;
    Ok(state)
}

/// All that a run needs beside the model and the moments to go on as if it had never stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// Decides dropout, with the step.
    pub(super) seed: u64,
    /// Batches in a step.
    pub(super) accumulate: usize,
    /// For the reader: a run may go on with another one.
    schedule: Schedule,
    /// What the best weights are the best by.
    #[serde(default)]
    pub(super) watch: Watch,
    pub(super) data: DataState,
    #[serde(flatten)]
    pub(super) progress: Progress,
    pub(super) history: Vec<Row>,
}

impl State {
    const FORMAT: u32 = 1;

    pub(super) fn new(
        seed: u64,
        accumulate: usize,
        schedule: Schedule,
        watch: Watch,
        data: DataState,
        progress: Progress,
        history: &History,
    ) -> Self {
        let history = history.rows().to_vec();
        Self { format: Self::FORMAT, seed, accumulate, schedule, watch, data, progress, history }
    }
}
