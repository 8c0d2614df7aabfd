//! The state of a GloVe run: the rows of words and of contexts, in groups.

use rayon::prelude::*;

use super::Glove;
use crate::embeddings::training::run::{Position, diverged, endless};
use crate::embeddings::training::sampling::FastRng;
use crate::kernels::adagrad::row_len;
use crate::{Error, Result};

/// The number of groups of words and of contexts, and so the largest number of threads that can
/// work at once.
pub(super) const GROUPS: usize = 16;

/// Returns the group of a word and its index in it. Words are dealt by frequency rank, alternately
/// upwards and downwards, so that each group gets its share of frequent words.
pub(super) fn place(word: u32) -> (usize, usize) {
    let (turn, i) = (word as usize / GROUPS, word as usize % GROUPS);
    (if turn.is_multiple_of(2) { i } else { GROUPS - 1 - i }, turn)
}

/// The rows of words and of contexts, by group, and the position of the run; `Position::chunks`
/// counts parts of the epoch.
pub(super) struct State {
    pub(super) words: Vec<Vec<f32>>,
    pub(super) contexts: Vec<Vec<f32>>,
    pub(super) position: Position,
}

impl State {
    /// The number of rows of each group of a vocabulary of `words` words.
    pub(super) fn rows(words: usize) -> usize {
        words.div_ceil(GROUPS)
    }

    /// Returns the initial rows: numbers within ±1/2 divided by `dim + 1`, AdaGrad sums of 1, as in
    /// the original tool.
    pub(super) fn start(glove: &Glove, words: usize) -> Result<Self> {
        let (n, row) = (glove.dim + 1, row_len(glove.dim));
        let too_large = || Error::argument("dim", format!("vectors of {words} words that fit into memory"), glove.dim);
        let size = Self::rows(words).checked_mul(row).ok_or_else(too_large)?;
        let mut rng = FastRng::new(glove.seed, u64::MAX, 0);
        let mut group = |_| {
            let mut rows = Vec::new();
            rows.try_reserve_exact(size).map_err(|_| too_large())?;
            rows.resize(size, 1.0f32);
            for row in rows.chunks_exact_mut(row) {
                for x in &mut row[..n] {
                    *x = ((rng.bits() >> 40) as f32 / (1 << 24) as f32 - 0.5) / n as f32;
                }
            }
            Ok(rows)
        };
        let mut groups = || (0..GROUPS).map(&mut group).collect::<Result<_>>();
        Ok(State { words: groups()?, contexts: groups()?, position: Position::default() })
    }

    /// The vector of a word: the sum of its two vectors.
    pub(super) fn vector(&self, dim: usize, word: usize) -> impl Iterator<Item = f32> {
        let (group, at) = place(word as u32);
        let start = at * row_len(dim);
        self.words[group][start..start + dim].iter().zip(&self.contexts[group][start..]).map(|(w, c)| w + c)
    }

    /// Returns an error if the loss of this epoch is not finite: training has diverged.
    pub(super) fn check_loss(&self, glove: &Glove) -> Result<()> {
        let Position { epoch, loss, .. } = self.position;
        if loss.is_finite() { Ok(()) } else { Err(diverged("GloVe's loss", epoch, glove.epochs, glove.lr, loss)) }
    }

    /// Returns an error if the length of a vector is not finite: training has diverged.
    pub(super) fn check_rows(&self, glove: &Glove) -> Result<()> {
        let groups = self.words.par_iter().chain(&self.contexts);
        let wrong = |rows: &Vec<f32>| rows.chunks_exact(row_len(glove.dim)).find_map(|row| endless(&row[..=glove.dim]));
        match groups.find_map_first(wrong) {
            Some(length) => {
                let what = "the length of GloVe's vectors";
                Err(diverged(what, self.position.epoch, glove.epochs, glove.lr, length))
            }
            None => Ok(()),
        }
    }
}
