//! The training of a sentence: skip-gram and continuous bag of words, with negative sampling or
//! hierarchical softmax.
//!
//! Skip-gram: each word `c` and each word `w` around it (in a window of random width, so that near
//! words count more) are a pair, for which `σ(x_w · y_c)` should be 1. *Negative sampling* draws a
//! few random words for which it should be 0; they are drawn once for a [`GROUP`] of the window's
//! words rather than once per pair, which makes the work of a group small matrix products
//! ([`logistic`]), and its words are still updated one after the other. *Hierarchical softmax* uses
//! the inner nodes on the path to `c` instead. CBOW predicts `c` from the mean of the window's
//! rows.
//!
//! With subwords, the input of a word is the mean of its own row and those of its n-grams. As in
//! fastText, skip-gram then swaps directions: the input of the centre word predicts each word of
//! the window, each with its own negative samples, so that the many rows of an input are gathered
//! once per word.

use serde::{Deserialize, Serialize};

use super::Rows;
use super::huffman::Huffman;
use super::sampling::{Alias, FastRng};
use crate::kernels::logistic::{MAX_INPUTS, logistic, padded};

/// The largest number of words of a skip-gram window that share negative samples. They are updated
/// one after the other, with the same updates as with their own samples, but fewer different
/// samples are used. With five words, training is a tenth to a quarter faster, and the similarity
/// of rare pairs (SimLex-999) falls by half a point.
const GROUP: usize = 3;
const _: () = assert!(GROUP <= MAX_INPUTS);

/// What the model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Architecture {
    /// Each word predicts each of its neighbours.
    SkipGram,
    /// The mean of the neighbours predicts the word.
    Cbow,
}

/// The approximation of the softmax over the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Loss {
    /// Negative sampling, with this number of samples.
    Negative(usize),
    /// Hierarchical softmax: the branches on the path to the word in a Huffman tree.
    Hierarchical,
}

/// What all threads share, in addition to the tables.
pub(crate) struct Task {
    pub(crate) architecture: Architecture,
    pub(crate) loss: Loss,
    pub(crate) dim: usize,
    pub(crate) window: usize,
    pub(crate) mean: bool,
    pub(crate) noise: Option<Alias>,
    pub(crate) tree: Option<Huffman>,
    /// The input rows of each word other than its own: `ngram_rows[ngram_starts[w]..ngram_starts[w
    /// + 1]]`.
    pub(crate) ngrams: Option<NgramRows>,
}

/// The rows of the n-grams of each word of the vocabulary.
pub(crate) struct NgramRows {
    pub(crate) starts: Vec<u32>,
    pub(crate) rows: Vec<u32>,
}

impl NgramRows {
    fn of(&self, word: u32) -> &[u32] {
        &self.rows[self.starts[word as usize] as usize..self.starts[word as usize + 1] as usize]
    }
}

/// The buffers of one thread.
pub(crate) struct Worker {
    width: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dy: Vec<f32>,
    errors: Vec<f32>,
    outputs: Vec<u32>,
    labels: Vec<f32>,
    inputs: Vec<u32>,
    plan: Plan,
    next: Plan,
    /// The pairs trained so far and their loss.
    pub(crate) loss_sum: LossSum,
}

/// The random choices for one position, made one position ahead so that rows can be prefetched.
#[derive(Default)]
struct Plan {
    window: usize,
    negatives: Vec<u32>,
    /// The end of the negative samples of each group.
    ends: Vec<usize>,
}

impl Plan {
    /// Draws the negative samples of the next group, for `positive`.
    fn draw<T: Rows>(&mut self, task: &Task, output: &T, positive: u32, rng: &mut FastRng) {
        let (Some(noise), Loss::Negative(n)) = (&task.noise, task.loss) else { return };
        for _ in 0..n {
            let word = noise.sample(rng);
            // A sample equal to the positive word is skipped, as in the original tool.
            if word != positive {
                self.negatives.push(word);
                output.prefetch(word as usize);
            }
        }
        self.ends.push(self.negatives.len());
    }

    fn negatives(&self, group: usize) -> &[u32] {
        let start = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.negatives[start..self.ends[group]]
    }
}

/// The size of the groups into which a window of `words` words is divided.
fn even(words: usize) -> usize {
    words.div_ceil(words.div_ceil(GROUP).max(1)).max(1)
}

/// The words around position `i`, at most `window` on each side.
fn around(words: &[u32], i: usize, window: usize) -> (&[u32], &[u32]) {
    (&words[i.saturating_sub(window)..i], &words[i + 1..(i + 1 + window).min(words.len())])
}

/// The number of pairs and the sum of their losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LossSum {
    pub(crate) pairs: u64,
    pub(crate) loss: f64,
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: LossSum) {
        self.pairs += other.pairs;
        self.loss += other.loss;
    }
}

impl Worker {
    pub(crate) fn new(task: &Task) -> Self {
        Worker {
            width: padded(task.dim),
            x: Vec::new(),
            y: Vec::new(),
            dx: Vec::new(),
            dy: Vec::new(),
            errors: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            inputs: Vec::new(),
            plan: Plan::default(),
            next: Plan::default(),
            loss_sum: LossSum::default(),
        }
    }

    /// Trains on the words of a sentence (after subsampling), at learning rate `alpha`.
    pub(crate) fn sentence<T: Rows>(
        &mut self,
        task: &Task,
        input: &mut T,
        output: &mut T,
        words: &[u32],
        alpha: f32,
        rng: &mut FastRng,
    ) {
        if words.len() < 2 {
            return;
        }
        self.draw(task, output, words, 0, rng);
        for (i, &center) in words.iter().enumerate() {
            std::mem::swap(&mut self.plan, &mut self.next);
            if i + 1 < words.len() {
                self.draw(task, output, words, i + 1, rng);
            }
            let (before, after) = around(words, i, self.plan.window);
            self.labels.clear();
            self.outputs.clear();
            match (task.architecture, &task.ngrams) {
                (Architecture::SkipGram, None) => {
                    self.inputs.clear();
                    self.inputs.extend(before.iter().chain(after));
                    self.groups(task, input, output, center, alpha);
                }
                (Architecture::SkipGram, Some(_)) => {
                    for &word in before.iter().chain(after) {
                        self.plan.negatives.clear();
                        self.plan.ends.clear();
                        self.plan.draw(task, output, word, rng);
                        self.target(task, word, 0);
                    }
                    self.inputs.clear();
                    self.gather(task, input, &[center]);
                    self.step(output, alpha);
                    self.scatter(input, 1.0);
                    self.loss_sum.pairs += (before.len() + after.len()) as u64;
                }
                (Architecture::Cbow, _) => {
                    self.target(task, center, 0);
                    self.inputs.clear();
                    self.gather_all(task, input, before, after);
                    self.step(output, alpha);
                    // The gradient of a sum is divided among its rows, as in gensim; that of a mean
                    // is added to each in full.
                    self.scatter(input, if task.mean { 1.0 } else { 1.0 / self.inputs.len() as f32 });
                    self.loss_sum.pairs += 1;
                }
            }
        }
    }

    /// Trains the words in `inputs`, in groups, as neighbours of `center`.
    fn groups<T: Rows>(&mut self, task: &Task, input: &mut T, output: &mut T, center: u32, alpha: f32) {
        let words = std::mem::take(&mut self.inputs);
        for (group, words) in words.chunks(even(words.len())).enumerate() {
            self.labels.clear();
            self.outputs.clear();
            self.target(task, center, group);
            self.x.resize(words.len() * self.width, 0.0);
            for (row, &word) in self.x.chunks_exact_mut(self.width).zip(words) {
                input.read(word as usize, row);
            }
            self.step(output, alpha);
            for (row, &word) in self.dx.chunks_exact(self.width).zip(words) {
                input.add(word as usize, row);
            }
        }
        self.loss_sum.pairs += words.len() as u64;
        self.inputs = words;
    }

    /// Draws the window and the negative samples of position `i`, the next one.
    fn draw<T: Rows>(&mut self, task: &Task, output: &T, words: &[u32], i: usize, rng: &mut FastRng) {
        let plan = &mut self.next;
        plan.window = 1 + rng.below(task.window as u32) as usize;
        plan.negatives.clear();
        plan.ends.clear();
        let groups = match (task.architecture, &task.ngrams) {
            (Architecture::SkipGram, Some(_)) => return, // each word of the window draws its own
            (Architecture::SkipGram, None) => {
                let (before, after) = around(words, i, plan.window);
                let len = before.len() + after.len();
                len.div_ceil(even(len))
            }
            (Architecture::Cbow, _) => 1,
        };
        for _ in 0..groups {
            plan.draw(task, output, words[i], rng);
        }
        if task.noise.is_some() {
            output.prefetch(words[i] as usize);
        }
    }

    /// Adds the output rows of a word to predict, with the negative samples of a group.
    fn target(&mut self, task: &Task, word: u32, group: usize) {
        match &task.tree {
            Some(tree) => {
                let (nodes, labels) = tree.path(word);
                self.outputs.extend_from_slice(nodes);
                self.labels.extend_from_slice(labels);
            }
            None => {
                self.outputs.push(word);
                self.labels.push(1.0);
                self.outputs.extend_from_slice(self.plan.negatives(group));
                self.labels.resize(self.outputs.len(), 0.0);
            }
        }
    }

    /// Computes `x`: the mean (or sum) of the rows of the words in `before` and `after`.
    fn gather_all<T: Rows>(&mut self, task: &Task, input: &T, before: &[u32], after: &[u32]) {
        for &word in before.iter().chain(after) {
            self.inputs.push(word);
            if let Some(ngrams) = &task.ngrams {
                self.inputs.extend_from_slice(ngrams.of(word));
            }
        }
        self.sum_inputs(task, input);
    }

    fn gather<T: Rows>(&mut self, task: &Task, input: &T, words: &[u32]) {
        self.gather_all(task, input, words, &[]);
    }

    fn sum_inputs<T: Rows>(&mut self, task: &Task, input: &T) {
        self.x.clear();
        self.x.resize(self.width, 0.0);
        for &row in &self.inputs {
            input.add_to(row as usize, &mut self.x);
        }
        if task.mean || task.architecture == Architecture::SkipGram {
            let scale = 1.0 / self.inputs.len() as f32;
            self.x.iter_mut().for_each(|x| *x *= scale);
        }
    }

    fn scatter<T: Rows>(&mut self, input: &mut T, scale: f32) {
        if scale != 1.0 {
            self.dx.iter_mut().for_each(|x| *x *= scale);
        }
        for &row in &self.inputs {
            input.add(row as usize, &self.dx);
        }
    }

    /// Computes the loss of `x` against the rows `outputs` and updates them; the change of `x` is
    /// in `dx`.
    fn step<T: Rows>(&mut self, output: &mut T, alpha: f32) {
        let n = self.outputs.len() * self.width;
        // Padding after `dim` stays zero, as it was allocated.
        self.y.resize(n, 0.0);
        self.dy.resize(n, 0.0);
        self.dx.resize(self.x.len(), 0.0);
        for (row, &word) in self.y.chunks_exact_mut(self.width).zip(&self.outputs) {
            output.read(word as usize, row);
        }
        self.loss_sum.loss +=
            logistic(self.width, &self.x, &self.y, &self.labels, alpha, &mut self.errors, &mut self.dx, &mut self.dy);
        for (row, &word) in self.dy.chunks_exact(self.width).zip(&self.outputs) {
            output.add(word as usize, row);
        }
    }
}
