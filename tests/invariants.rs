//! Properties for every shape and input: results do not depend on the future, on other sequences of
//! the batch, on padding or on the number of threads. All comparisons are of bits.

#![allow(clippy::unwrap_used)]

use loquat::nn::*;
use loquat::ops::{self, Cell};
use loquat::{AttentionMask, IdTensor, Rng, Tensor};

/// A layer that maps `[batch, seq_len, d_model]` to the same shape.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Encoder,
    Causal,
    Rnn(Cell),
    Bidirectional(Cell),
}

const KINDS: [Kind; 6] = [
    Kind::Encoder,
    Kind::Causal,
    Kind::Rnn(Cell::RnnTanh),
    Kind::Rnn(Cell::Lstm),
    Kind::Rnn(Cell::Gru),
    Kind::Bidirectional(Cell::Lstm),
];

enum Layer {
    Encoder(Box<Encoder>),
    Recurrent(Recurrent),
}

impl Layer {
    fn init(kind: Kind, d_model: usize, n_heads: usize) -> Self {
        let mut rng = Rng::seed(7);
        match kind {
            Kind::Encoder | Kind::Causal => {
                let config =
                    EncoderLayerConfig::new(d_model, n_heads, 2 * d_model + 1).norm_first(kind == Kind::Causal);
                Layer::Encoder(Box::new(Encoder::init(&config, 2, true, &mut rng).unwrap()))
            }
            Kind::Rnn(cell) | Kind::Bidirectional(cell) => {
                let both = matches!(kind, Kind::Bidirectional(_));
                let config = RecurrentConfig::new(d_model, d_model + 1).layers(2).bidirectional(both);
                Layer::Recurrent(Recurrent::init(cell, &config, &mut rng).unwrap())
            }
        }
    }

    /// The output for sequences with tokens at `ranges` and padding elsewhere.
    fn forward(&self, kind: Kind, x: &Tensor, ranges: &[(usize, usize)]) -> Tensor {
        let seq_len = x.shape()[1];
        match self {
            Layer::Encoder(encoder) => {
                let seen = |&(start, end): &(usize, usize)| (0..seq_len).map(move |i| u32::from(i >= start && i < end));
                let seen: Vec<u32> = ranges.iter().flat_map(seen).collect();
                let padding = AttentionMask::padding(&IdTensor::new(seen, &x.shape()[..2]).unwrap());
                let mask = if kind == Kind::Causal { padding.and(&AttentionMask::causal()) } else { padding };
                encoder.forward(x, &mask).unwrap()
            }
            Layer::Recurrent(layer) => {
                let lengths: Vec<usize> = ranges.iter().map(|range| range.1).collect();
                layer.forward(x, None, Some(&lengths)).unwrap().0
            }
        }
    }

    fn parameters(&self) -> Vec<(String, &Parameter)> {
        match self {
            Layer::Encoder(encoder) => encoder.parameters(),
            Layer::Recurrent(layer) => layer.parameters(),
        }
    }

    /// Output, gradient of `x`, gradients of the parameters; the gradient of padding outputs is
    /// zero.
    fn run(&self, kind: Kind, x: &Tensor, ranges: &[(usize, usize)]) -> (Tensor, Tensor, Vec<Tensor>) {
        let x = x.watch();
        let y = self.forward(kind, &x, ranges);
        let (seq_len, width) = (y.shape()[1], y.shape()[2]);
        // The gradient of the output depends on the sequence and the position in it only, so it
        // moves with the sequence.
        let dy = y.data().iter().enumerate().map(|(i, y)| {
            let (b, t) = (i / width / seq_len, i / width % seq_len);
            if (ranges[b].0..ranges[b].1).contains(&t) { (3.0 * y).sin() } else { 0.0 }
        });
        let gradients = y.backward_from(Tensor::from_vec(dy.collect(), y.shape()).unwrap()).unwrap();
        let of = |leaf: &Tensor| gradients.of(leaf).unwrap().clone();
        (y.detach(), of(&x), self.parameters().into_iter().map(|(_, p)| of(p.tensor())).collect())
    }
}

/// Sequence `b` from `start` to `end`, as a batch of one.
fn part(x: &Tensor, b: usize, (start, end): (usize, usize)) -> Tensor {
    x.narrow(0, b, 1).unwrap().narrow(1, start, end - start).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.data().iter().map(|x| x.to_bits()).collect()
}

/// A layer and a batch: the kind, heads and their width, the sequence length, how many tokens each
/// sequence has and whether its padding is on the left, and a seed.
struct Case {
    kind: Kind,
    heads: usize,
    dim: usize,
    len: usize,
    lengths: Vec<(usize, bool)>,
    seed: u64,
}

fn cases() -> impl Iterator<Item = Case> {
    let mut rng = Rng::seed(17);
    (0..60).map(move |_| {
        let len = 1 + rng.below(39);
        Case {
            kind: KINDS[rng.below(KINDS.len())],
            heads: 1 + rng.below(3),
            dim: 1 + rng.below(9),
            len,
            lengths: (0..1 + rng.below(4)).map(|_| (1 + rng.below(len), rng.below(2) == 1)).collect(),
            seed: rng.next_u64(),
        }
    })
}

/// The positions of the tokens: before or, in attention, after the padding.
fn ranges(kind: Kind, len: usize, lengths: &[(usize, bool)]) -> Vec<(usize, usize)> {
    let left_allowed = matches!(kind, Kind::Encoder | Kind::Causal);
    lengths.iter().map(|&(n, left)| if left && left_allowed { (len - n, len) } else { (0, n) }).collect()
}

#[test]
fn padding_and_neighbours_change_nothing() {
    for Case { kind, heads, dim, len, lengths, seed } in cases() {
        let layer = Layer::init(kind, heads * dim, heads);
        let x = Tensor::normal(&[lengths.len(), len, heads * dim], 1.0, &mut Rng::seed(seed));
        let ranges = ranges(kind, len, &lengths);
        let (y, dx, _) = layer.run(kind, &x, &ranges);
        for (b, &range) in ranges.iter().enumerate() {
            let alone = part(&x, b, range);
            let (y_alone, dx_alone, _) = layer.run(kind, &alone, &[(0, range.1 - range.0)]);
            assert_eq!(bits(&part(&y, b, range)), bits(&y_alone), "output of sequence {}", b);
            assert_eq!(bits(&part(&dx, b, range)), bits(&dx_alone), "gradient of sequence {}", b);
        }
    }
}

#[test]
fn the_order_of_the_batch_changes_nothing() {
    for Case { kind, heads, dim, len, lengths, seed } in cases() {
        let layer = Layer::init(kind, heads * dim, heads);
        let x = Tensor::normal(&[lengths.len(), len, heads * dim], 1.0, &mut Rng::seed(seed));
        let ranges = ranges(kind, len, &lengths);
        let (y, dx, _) = layer.run(kind, &x, &ranges);
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        Rng::seed(seed ^ 1).shuffle(&mut order);
        let rows: Vec<Tensor> = order.iter().map(|&b| x.narrow(0, b, 1).unwrap()).collect();
        let shuffled = ops::concat(&rows.iter().collect::<Vec<_>>(), 0).unwrap();
        let (y_shuffled, dx_shuffled, _) =
            layer.run(kind, &shuffled, &order.iter().map(|&b| ranges[b]).collect::<Vec<_>>());
        for (row, &b) in order.iter().enumerate() {
            assert_eq!(bits(&part(&y_shuffled, row, ranges[b])), bits(&part(&y, b, ranges[b])));
            assert_eq!(bits(&part(&dx_shuffled, row, ranges[b])), bits(&part(&dx, b, ranges[b])));
        }
    }
}

#[test]
fn the_future_cannot_change_the_past() {
    for Case { kind, heads, dim, len, lengths, seed } in cases() {
        if matches!(kind, Kind::Encoder | Kind::Bidirectional(_)) {
            continue;
        }
        let layer = Layer::init(kind, heads * dim, heads);
        let x = Tensor::normal(&[1, len, heads * dim], 1.0, &mut Rng::seed(seed));
        let past = lengths[0].0;
        let mut other = x.clone();
        other.make_mut()[past * heads * dim..].fill(-2.5);
        let [y, z] = [&x, &other].map(|x| layer.forward(kind, x, &[(0, len)]));
        assert_eq!(bits(&part(&y, 0, (0, past))), bits(&part(&z, 0, (0, past))));
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for kind in KINDS {
        let layer = Layer::init(kind, 48, 4);
        let x = Tensor::normal(&[5, 70, 48], 1.0, &mut Rng::seed(3));
        let ranges = [(0, 70), (0, 3), (0, 70), (0, 41), (0, 64)];
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (y, dx, mut gradients) = pool.install(|| layer.run(kind, &x, &ranges));
            gradients.extend([y, dx]);
            gradients.iter().map(bits).collect::<Vec<_>>()
        };
        let one = on(1);
        for threads in 2..5 {
            assert!(on(threads) == one, "{kind:?} on {threads} threads");
        }
    }
}

#[test]
fn rows_of_softmax_sum_to_one_and_rows_of_norms_have_unit_size() {
    let mut rng = Rng::seed(5);
    for cols in [1, 2, 15, 16, 17, 64, 1000] {
        let x = Tensor::normal(&[7, cols], 4.0, &mut rng);
        let ones = Tensor::full(&[cols], 1.0);
        for row in x.softmax().unwrap().data().chunks(cols) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let norm = ops::rms_norm(&x, &ones, 0.0).unwrap();
        for row in norm.data().chunks(cols) {
            let mean_square = row.iter().map(|x| x * x).sum::<f32>() / cols as f32;
            assert!((mean_square - 1.0).abs() < 1e-5, "{cols} columns: {mean_square}");
        }
        let norm = ops::layer_norm(&x, &ones, None, 0.0).unwrap();
        for row in norm.data().chunks(cols).filter(|row| row.len() > 1) {
            let mean = row.iter().sum::<f32>() / cols as f32;
            assert!(mean.abs() < 1e-5, "{cols} columns: {mean}");
        }
    }
}
