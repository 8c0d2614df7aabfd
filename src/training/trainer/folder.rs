//! The folder of a run: its model, its history, and the checkpoints from which it resumes.
//!
//! ```text
//! out/
//!   config.json, tokenizer.json, …   written by the caller's hooks
//!   model.safetensors                the best weights by validation; without, the last ones
//!   history.csv
//!   checkpoints/
//!     step-00000500/                 the last state: a model folder with these additional files
//!       best.safetensors               the best weights so far: a hard link to the file above
//!       optimizer.safetensors          the moments
//!       trainer.json                   step, position in the data, best metric, history
//! ```
//!
//! `transformers` can open both `out/` and each `step-…/`.
//!
//! Killing the process at any time loses nothing that was saved before. Single files are replaced
//! by renaming. A checkpoint consists of several files, so it is written under a temporary name,
//! synced to disk, and renamed to a new name; only then are older checkpoints removed (they are
//! renamed first). A resumed run reads the `step-…` with the highest number, which is complete. The
//! weights in `out/` may be of a later step than the last checkpoint: a resumed run restores the
//! weights that were the best at its checkpoint, and reaches the later step again with the same
//! bits.
//!
//! A second run in the folder is refused while the first one trains (`lock`).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Counters;
use super::best::Watch;
use super::lock::Lock;
use crate::atomic;
use crate::checkpoint::{Checkpoint, Pretrained, pretrained, save_module};
use crate::error::{Error, Result};
use crate::mapped::Load;
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

/// The behaviour if the folder already contains a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// Return an error, also if the folder contains any other model, so that nothing is overwritten
    /// by mistake.
    #[default]
    Refuse,
    /// Resume from the last checkpoint; return an error if there is none.
    Resume,
    /// Resume from the last checkpoint; if there is none, begin a new run that overwrites existing
    /// weights. For a program that is restarted until it finishes.
    ResumeOrBegin,
    /// Remove the weights and checkpoints and begin a new run.
    Replace,
}

/// A callback that writes files into a model folder.
type Hook<'a> = Box<dyn Fn(&Path) -> Result<()> + 'a>;

/// The folder in which a run saves its model and its state.
///
/// # Examples
/// ```
/// use loquat::training::{Existing, RunFolder};
///
/// let folder = RunFolder::new("out/shakespeare").existing(Existing::Resume);
/// let folder = folder.file("note.txt", "trained on plays");
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
    /// Returns the folder at `path`, which is created when the run starts.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), existing: Existing::Refuse, keep: 1, hooks: Vec::new() }
    }

    /// Sets what to do if the folder already contains a run. Default: [`Existing::Refuse`].
    pub fn existing(self, existing: Existing) -> Self {
        Self { existing, ..self }
    }

    /// Sets how many of the last checkpoints to keep, at least 1. Default: 1.
    pub fn keep(self, checkpoints: usize) -> Self {
        Self { keep: checkpoints.max(1), ..self }
    }

    /// Writes the `config.json` of the model into each model folder.
    pub fn config(self, model: &impl Pretrained) -> Self {
        let config = format!("{:#}\n", model.config_json());
        self.file(pretrained::CONFIG, config)
    }

    /// Writes a text file into each model folder.
    pub fn file(self, name: &str, content: impl Into<String>) -> Self {
        let (name, content) = (name.to_string(), content.into());
        self.files(move |folder| atomic::write_file(folder.join(&name), |file| file.write_all(content.as_bytes())))
    }

    /// Calls `write` with each model folder, to write more files into it (for example, the
    /// tokenizer).
    pub fn files(mut self, write: impl Fn(&Path) -> Result<()> + 'a) -> Self {
        self.hooks.push(Box::new(write));
        self
    }

    /// Returns the path of the last checkpoint: a model folder with the state of the run.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub fn last_checkpoint(&self) -> Result<Option<PathBuf>> {
        Ok(self.checkpoints()?.pop().map(|(_, path)| path))
    }

    /// The checkpoints, sorted by step.
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

    /// Checks that a run may begin here, before anything is written.
    ///
    /// # Errors
    /// [`Error::Argument`] if another process trains in the folder, if the folder contains a run
    /// and [`Existing::Refuse`] is set, or if it has no checkpoint and [`Existing::Resume`] is set;
    /// [`Error::Io`] if it cannot be read.
    pub fn check(&self) -> Result<()> {
        Lock::check(&self.path)?;
        self.check_found()
    }

    fn check_found(&self) -> Result<()> {
        let name = "folder of the run";
        match (self.existing, self.found()?.first()) {
            (Existing::Refuse, Some(path)) => {
                let expected = "a folder without a model (or `Existing::Resume` or `Existing::Replace`)";
                Err(Error::argument(name, expected, path.display()))
            }
            (Existing::Resume, _) if self.last_checkpoint()?.is_none() => {
                let found = format!("none in {}", self.path.display());
                Err(Error::argument(name, "a folder with a checkpoint (or not `Existing::Resume`)", found))
            }
            _ => Ok(()),
        }
    }

    /// The checkpoints and weights in the folder.
    fn found(&self) -> Result<Vec<PathBuf>> {
        let weights = Some(self.path.join(MODEL)).filter(|path| path.exists());
        Ok(self.checkpoints()?.into_iter().map(|(_, path)| path).chain(weights).collect())
    }

    /// Creates and locks the folder. Returns the checkpoint to resume from, if there is one.
    pub(super) fn open(&self) -> Result<(Lock, Option<PathBuf>)> {
        // Checked first, so that a run that may not begin creates nothing.
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

    /// Restores the weights that were the best when a checkpoint was written.
    pub(super) fn put_best_back(&self, checkpoint: &Path) -> Result<()> {
        let best = checkpoint.join(BEST);
        if best.exists() { atomic::link(best, self.path.join(MODEL)) } else { Ok(()) }
    }

    /// Loads the weights of the folder itself.
    pub(super) fn load_model(&self, model: &mut impl Module) -> Result<()> {
        Checkpoint::open_with(self.path.join(MODEL), Load::REPLACEABLE)?.load_into(model)
    }

    /// Writes the caller's files into the folder itself. This happens before the first step, so
    /// that a file that cannot be written is an error early; and after loading, so that a run that
    /// does not fit overwrites nothing.
    pub(super) fn write_files(&self) -> Result<()> {
        self.hooks.iter().try_for_each(|write| write(&self.path))
    }

    /// Replaces the weights of the folder itself.
    pub(super) fn save_model(&self, model: &impl Module) -> Result<()> {
        save_module(self.path.join(MODEL), model)
    }

    pub(super) fn save_history(&self, history: &History) -> Result<()> {
        atomic::write_file(self.path.join(HISTORY), |file| file.write_all(history.to_csv().as_bytes()))
    }

    /// Writes a checkpoint and removes old ones.
    pub(super) fn save_checkpoint(&self, model: &impl Module, optimizer: &Optimizer, state: &State) -> Result<PathBuf> {
        let path = self.path.join(CHECKPOINTS).join(format!("{STEP}{:08}", state.progress.step));
        if path.exists() {
            // It has the same bits: it is of the same step of the same run, because a new run
            // begins without checkpoints.
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

/// Loads the model, the optimizer and the state of a checkpoint.
pub(super) fn load_checkpoint(folder: &Path, model: &mut impl Module, optimizer: &mut Optimizer) -> Result<State> {
    let path = folder.join(STATE);
    let json = std::fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let state: State =
        serde_json::from_slice(&json).map_err(|e| Error::format(&path, format!("expected the state of a run: {e}")))?;
    if state.format != State::FORMAT {
        return Err(Error::format(&path, format!("expected format {}, found {}", State::FORMAT, state.format)));
    }
    optimizer.load(folder.join(OPTIMIZER), &*model)?;
    Checkpoint::open_with(folder, Load::REPLACEABLE)?.load_into(model)?;
    Ok(state)
}

/// The state that a resumed run needs in addition to the weights and moments to continue with the
/// same bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// The seed of dropout.
    pub(super) seed: u64,
    /// The number of batches per step.
    pub(super) accumulate: usize,
    /// Informative only: a run may resume with another schedule.
    schedule: Schedule,
    /// The metric that decides which weights are best.
    #[serde(default)]
    pub(super) watch: Watch,
    pub(super) data: DataState,
    #[serde(flatten)]
    pub(super) progress: Counters,
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
        progress: Counters,
        history: &History,
    ) -> Self {
        let history = history.rows().to_vec();
        Self { format: Self::FORMAT, seed, accumulate, schedule, watch, data, progress, history }
    }
}
