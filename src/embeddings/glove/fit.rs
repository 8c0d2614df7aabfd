//! Fitting of vectors to co-occurrences, by AdaGrad in random order, on all threads and with the
//! same bits at any number of them.
//!
//! Pairs are distributed at random over parts of some ten thousand pairs; each epoch visits the
//! parts in a different order and shuffles each of them. A row has a vector, its bias and the
//! AdaGrad sums of both, so a pair accesses two rows.
//!
//! Words and contexts are each divided into [`GROUPS`] groups. In a round each thread updates
//! different words *and* different contexts from the others, so no thread waits, no update is lost,
//! and no cache line is shared; in as many rounds as there are groups all pairs of a batch are
//! visited (Gemulla et al. 2011, "Large-scale matrix factorization with distributed stochastic
//! gradient descent", <https://doi.org/10.1145/2020408.2020426>).

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::records::{PART, Record, Shuffled};
use super::state::{GROUPS, State, place};
use super::{Cooccurrences, Glove, GloveModel, checkpoint};
use crate::embeddings::training::run::{Observer, Position, Progress};
use crate::embeddings::training::sampling::FastRng;
use crate::kernels::adagrad::{adagrad_pair, row_len};
use crate::kernels::prefetch::prefetch;
use crate::{Result, Rng};

/// The number of parts per batch: each block of two groups then has enough pairs to be worth a
/// task.
const PARTS: usize = 16;

/// The approximate number of bytes of a batch: each pair in both directions, and as it was read.
const BATCH: usize = PARTS * PART as usize * (2 * size_of::<Pair>() + size_of::<Record>());

/// A pair to train: row numbers within their groups.
#[derive(Clone, Copy, Default)]
struct Pair {
    word: u32,
    context: u32,
    x: f32,
}

/// The pairs of a part, by the groups of word and context, in random order within each block.
struct Part {
    pairs: Vec<Pair>,
    starts: Vec<usize>,
}

impl Part {
    fn new(records: &[Record], symmetric: bool) -> Self {
        let ways = |r: &Record| {
            let both = symmetric && r.first != r.second;
            std::iter::once((r.first, r.second)).chain(both.then_some((r.second, r.first)))
        };
        let block = |a: u32, b: u32| place(a).0 * GROUPS + place(b).0;
        let mut starts = vec![0; GROUPS * GROUPS + 1];
        records.iter().flat_map(ways).for_each(|(a, b)| starts[block(a, b) + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut next = starts.clone();
        let mut pairs = vec![Pair::default(); starts[GROUPS * GROUPS]];
        for record in records {
            for (a, b) in ways(record) {
                let at = &mut next[block(a, b)];
                pairs[*at] = Pair { word: place(a).1 as u32, context: place(b).1 as u32, x: record.x };
                *at += 1;
            }
        }
        Part { pairs, starts }
    }

    fn block(&self, words: usize, contexts: usize) -> &[Pair] {
        let block = words * GROUPS + contexts;
        &self.pairs[self.starts[block]..self.starts[block + 1]]
    }
}

/// The number of pairs and the sum of their losses.
#[derive(Clone, Copy, Default)]
struct PairLoss {
    pairs: u64,
    loss: f64,
}

impl std::ops::Add for PairLoss {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { pairs: self.pairs + other.pairs, loss: self.loss + other.loss }
    }
}

/// Trains on some pairs of a group of words and a group of contexts.
fn learn(glove: &Glove, words: &mut [f32], contexts: &mut [f32], pairs: &[Pair]) -> PairLoss {
    let (dim, row) = (glove.dim, row_len(glove.dim));
    let mut loss = 0.0;
    for (i, pair) in pairs.iter().enumerate() {
        if let Some(next) = pairs.get(i + 2) {
            for (rows, at) in [(&*words, next.word), (&*contexts, next.context)] {
                prefetch(&rows[at as usize * row..][..row]);
            }
        }
        let target = pair.x.ln();
        let weight = if pair.x < glove.x_max { (pair.x / glove.x_max).powf(glove.alpha) } else { 1.0 };
        let x = &mut words[pair.word as usize * row..][..row];
        let y = &mut contexts[pair.context as usize * row..][..row];
        loss += f64::from(adagrad_pair(dim, x, y, target, weight, glove.lr));
    }
    PairLoss { pairs: pairs.len() as u64, loss }
}

impl State {
    /// Trains on the pairs of some parts, in as many rounds as there are groups.
    fn learn(&mut self, glove: &Glove, parts: &[Part]) {
        crate::kernels::parallel::adopt();
        for round in 0..GROUPS {
            let block = |(group, (words, contexts)): (usize, (&mut Vec<f32>, &mut Vec<f32>))| {
                let pairs = parts.iter().map(|part| part.block(group, (group + round) % GROUPS));
                pairs.fold(PairLoss::default(), |sum, pairs| sum + learn(glove, words, contexts, pairs))
            };
            // The groups of contexts are ordered as the groups of words meet them.
            let rows = self.words.par_iter_mut().zip(self.contexts.par_iter_mut()).enumerate().with_max_len(1);
            let losses: Vec<PairLoss> = rows.map(block).collect();
            for loss in losses {
                self.position.pairs += loss.pairs;
                self.position.loss += loss.loss;
            }
            self.contexts.rotate_left(1);
        }
    }
}

/// Fits from `state` on.
pub(super) fn fit(
    glove: &Glove,
    counts: &Cooccurrences,
    mut state: State,
    observer: &mut dyn Observer,
) -> Result<GloveModel> {
    let folder = glove.folder()?;
    let shuffled = counts.with_records(|records| {
        let left = glove.memory.saturating_sub(records.memory() + BATCH);
        Shuffled::new(records, &folder, glove.seed, left)
    })?;
    let (symmetric, diagonal) = (counts.symmetric(), counts.diagonal());
    let pairs = if symmetric { 2 * shuffled.len() - diagonal } else { shuffled.len() };
    let (began, before) = (Instant::now(), pairs * state.position.epoch as u64 + state.position.pairs);
    let (mut reported, mut saved) = (Instant::now(), Instant::now());
    let mut report = |at: &Position, end: bool| {
        if !end && reported.elapsed() < Duration::from_millis(100) {
            return ControlFlow::Continue(());
        }
        reported = Instant::now();
        let (done, total) = (pairs * at.epoch as u64 + at.pairs, pairs.saturating_mul(glove.epochs as u64));
        let (time, loss) = (began.elapsed(), at.loss / at.pairs as f64);
        observer.progress(&Progress::fitting(at.epoch, glove.epochs, [before, done, total], time, loss, glove.lr, end))
    };
    'run: while state.position.epoch < glove.epochs {
        let epoch = state.position.epoch as u64;
        let mut order: Vec<usize> = (0..shuffled.parts()).collect();
        Rng::stream(glove.seed, epoch).shuffle(&mut order);
        let load = |&part: &usize| -> Result<Part> {
            let mut records = Vec::new();
            shuffled.part(part, &mut records)?;
            let mut rng = FastRng::new(glove.seed, epoch, part as u64);
            for i in (1..records.len()).rev() {
                records.swap(i, rng.below(i as u32 + 1) as usize);
            }
            Ok(Part::new(&records, symmetric))
        };
        for batch in order[(state.position.chunks as usize).min(order.len())..].chunks(PARTS) {
            crate::kernels::parallel::adopt();
            let parts: Vec<Part> = batch.par_iter().map(load).collect::<Result<_>>()?;
            state.learn(glove, &parts);
            state.position.chunks += parts.len() as u64;
            state.check_loss(glove)?;
            if report(&state.position, false).is_break() {
                state.check_rows(glove)?;
                break 'run;
            }
            if glove.checkpoint.as_ref().is_some_and(|(_, every)| saved.elapsed() >= *every) {
                state.check_rows(glove)?;
                checkpoint::save(glove, counts, &state)?;
                saved = Instant::now();
            }
        }
        state.check_rows(glove)?;
        let loss = state.position.loss / state.position.pairs as f64;
        let next = report(&state.position, true);
        state.position.losses.push(loss);
        let losses = std::mem::take(&mut state.position.losses);
        state.position = Position { epoch: state.position.epoch + 1, losses, ..Position::default() };
        checkpoint::save(glove, counts, &state)?;
        if next.is_break() {
            break;
        }
    }
    let mut rows = Vec::with_capacity(counts.len() * glove.dim);
    (0..counts.len()).for_each(|word| rows.extend(state.vector(glove.dim, word)));
    Ok(GloveModel::new(glove, counts.vocabulary(), rows, state.position.losses))
}
