//! Fitting vectors to co-occurrences, by AdaGrad in random order.
//!
//! Pairs lie in parts of some ten thousand, scattered at random; each epoch takes the parts in another order and shuffles
//! each anew, in the cache. One row holds a vector, its bias and the AdaGrad sums of both, so a pair touches two rows.
//! Threads take parts and share the table (see [`SharedTable`]); in deterministic mode, rounds of small blocks are
//! computed from a frozen table instead (see [`overlay`](crate::embeddings::training::overlay)).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::records::{Record, Shuffled};
use super::{Cooccurrences, Glove, GloveModel};
use crate::embeddings::training::Rows;
use crate::embeddings::training::overlay::{Changes, Overlay, merge};
use crate::embeddings::training::run::{Observer, Progress};
use crate::embeddings::training::sampling::FastRng;
use crate::embeddings::training::shared_table::SharedTable;
use crate::embeddings::training::text::on_all_threads;
use crate::kernels::adagrad::{adagrad_pair, row_len};
use crate::{Error, Result, Rng};

/// Blocks that a deterministic round computes at once.
const LANES: usize = 8;

/// What the inner loop needs.
struct Task<'g> {
    glove: &'g Glove,
    words: usize,
    symmetric: bool,
    /// The part of an epoch's pairs.
    pairs: u64,
}

/// One thread's rows.
struct Worker {
    x: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dy: Vec<f32>,
    loss: f64,
    pairs: u64,
}

impl Worker {
    fn new(dim: usize) -> Self {
        let row = || vec![0.0; row_len(dim)];
        Worker { x: row(), y: row(), dx: row(), dy: row(), loss: 0.0, pairs: 0 }
    }

    fn records<T: Rows>(&mut self, task: &Task<'_>, table: &mut T, records: &[Record]) {
        let glove = task.glove;
        for (i, record) in records.iter().enumerate() {
            if let Some(next) = records.get(i + 2) {
                for word in [next.first as usize, next.second as usize] {
                    table.prefetch(word);
                    table.prefetch(task.words + word);
                }
            }
            let target = record.x.ln();
            let weight = if record.x < glove.x_max { (record.x / glove.x_max).powf(glove.alpha) } else { 1.0 };
            let (a, b) = (record.first as usize, record.second as usize);
            self.pair(task, table, a, b, target, weight);
            if task.symmetric && a != b {
                self.pair(task, table, b, a, target, weight);
            }
        }
    }

    fn pair<T: Rows>(&mut self, task: &Task<'_>, table: &mut T, word: usize, context: usize, target: f32, weight: f32) {
        let (dim, context) = (task.glove.dim, task.words + context);
        table.read(word, &mut self.x);
        table.read(context, &mut self.y);
        let loss =
            adagrad_pair(dim, &mut self.x, &mut self.y, target, weight, task.glove.lr, &mut self.dx, &mut self.dy);
        table.add(word, &self.dx);
        table.add(context, &self.dy);
        self.loss += f64::from(loss);
        self.pairs += 1;
    }
}

struct Told<'o> {
    observer: &'o mut dyn Observer,
    last: Instant,
    began: Instant,
    epoch: usize,
    pairs: u64,
    loss: f64,
}

pub(super) fn fit(glove: &Glove, counts: &Cooccurrences, observer: &mut dyn Observer) -> Result<GloveModel> {
    let (words, dim) = (counts.len(), glove.dim);
    let folder = glove.folder()?;
    let shuffled = counts.with_records(|records| Shuffled::new(records, &folder, glove.seed, glove.memory / 2))?;
    let diagonal = counts.diagonal();
    let pairs = if counts.symmetric() { 2 * shuffled.len() - diagonal } else { shuffled.len() };
    let task = Task { glove, words, symmetric: counts.symmetric(), pairs };
    let mut table = start(words, glove)?;
    let stop = AtomicBool::new(false);
    let told =
        Mutex::new(Told { observer, last: Instant::now(), began: Instant::now(), epoch: 0, pairs: 0, loss: 0.0 });
    let tell = |worker: &mut Worker, end: bool| {
        let mut t = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        t.pairs += std::mem::take(&mut worker.pairs);
        t.loss += std::mem::take(&mut worker.loss);
        if end || t.last.elapsed() >= Duration::from_millis(100) {
            t.last = Instant::now();
            let done = task.pairs * t.epoch as u64 + t.pairs;
            let total = task.pairs * glove.epochs as u64;
            let progress = Progress::fitting(
                t.epoch,
                glove.epochs,
                done,
                total,
                t.began.elapsed(),
                t.loss / t.pairs as f64,
                glove.lr,
                end,
            );
            if t.observer.progress(&progress).is_break() {
                stop.store(true, Relaxed);
            }
        }
    };
    let mut losses = Vec::new();
    for epoch in 0..glove.epochs {
        let mut order: Vec<usize> = (0..shuffled.parts()).collect();
        Rng::stream(glove.seed, epoch as u64).shuffle(&mut order);
        let load = |part: usize, records: &mut Vec<Record>| -> Result<()> {
            shuffled.part(part, records)?;
            let mut rng = FastRng::new(glove.seed, epoch as u64, part as u64);
            for i in (1..records.len()).rev() {
                records.swap(i, rng.below(i as u32 + 1) as usize);
            }
            Ok(())
        };
        if glove.deterministic {
            rounds(&task, &mut table, &order, &load, &stop, &tell)?;
        } else {
            let shared = SharedTable::new(std::mem::take(&mut table), row_len(dim));
            let next = AtomicUsize::new(0);
            let ended = on_all_threads(|_| {
                let (mut worker, mut records) = (Worker::new(dim), Vec::new());
                while !stop.load(Relaxed)
                    && let Some(&part) = order.get(next.fetch_add(1, Relaxed))
                {
                    load(part, &mut records)?;
                    worker.records(&task, &mut &shared, &records);
                    tell(&mut worker, false);
                }
                Ok(())
            });
            table = shared.into_values();
            ended?;
        }
        if stop.load(Relaxed) {
            break;
        }
        tell(&mut Worker::new(dim), true);
        let mut t = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let loss = t.loss / t.pairs as f64;
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: "GloVe's loss (try a smaller lr)".into(), found: loss });
        }
        losses.push(loss);
        (t.epoch, t.pairs, t.loss) = (epoch + 1, 0, 0.0);
        if stop.load(Relaxed) {
            break;
        }
    }
    let row = row_len(dim);
    let sum = |i: usize| table[i * row..][..dim].iter().zip(&table[(words + i) * row..][..dim]).map(|(w, c)| w + c);
    let rows = (0..words).flat_map(sum).collect();
    Ok(GloveModel::new(counts.vocabulary(), dim, rows, losses))
}

/// The first table: words, then contexts; numbers within ±1/2 by `dim + 1`, squares 1, as the original starts.
fn start(words: usize, glove: &Glove) -> Result<Vec<f32>> {
    let (n, row) = (glove.dim + 1, row_len(glove.dim));
    let too_large = || Error::argument("dim", format!("vectors of {words} words that fit into memory"), glove.dim);
    let size = words.checked_mul(2).and_then(|rows| rows.checked_mul(row)).ok_or_else(too_large)?;
    let mut table = Vec::new();
    table.try_reserve_exact(size).map_err(|_| too_large())?;
    table.resize(size, 1.0f32);
    let mut rng = FastRng::new(glove.seed, u64::MAX, 0);
    for row in table.chunks_exact_mut(row) {
        for x in &mut row[..n] {
            *x = ((rng.bits() >> 40) as f32 / (1 << 24) as f32 - 0.5) / n as f32;
        }
    }
    Ok(table)
}

fn rounds(
    task: &Task<'_>,
    table: &mut [f32],
    order: &[usize],
    load: &(dyn Fn(usize, &mut Vec<Record>) -> Result<()> + Sync),
    stop: &AtomicBool,
    tell: &(dyn Fn(&mut Worker, bool) + Sync),
) -> Result<()> {
    let dim = task.glove.dim;
    // So few that a row is seldom changed by several blocks of a round.
    let block = (task.words / 16).clamp(4, 1024);
    let mut lanes: Vec<(Worker, Changes)> = (0..LANES).map(|_| (Worker::new(dim), Changes::default())).collect();
    let mut records = Vec::new();
    for &part in order {
        load(part, &mut records)?;
        for round in records.chunks(block * LANES) {
            if stop.load(Relaxed) {
                return Ok(());
            }
            let frozen: &[f32] = table;
            let blocks: Vec<&[Record]> = round.chunks(block).collect();
            lanes[..blocks.len()].par_iter_mut().zip(&blocks).with_max_len(1).for_each(|((worker, changes), block)| {
                let mut overlay = Overlay::new(frozen, row_len(dim), std::mem::take(changes));
                worker.records(task, &mut overlay, block);
                *changes = overlay.finish();
            });
            merge(table, row_len(dim), lanes[..blocks.len()].iter().map(|lane| &lane.1));
            lanes[..blocks.len()].iter_mut().for_each(|lane| tell(&mut lane.0, false));
        }
    }
    Ok(())
}
