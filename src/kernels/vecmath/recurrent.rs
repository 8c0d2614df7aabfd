//! The gates of recurrent cells: one step of a batch, except for the products.
//!
//! LSTM (Hochreiter, Schmidhuber 1997; with forget gates, Gers et al. 2000) from
//! `a = W·x + U·h + b`:
//!
//! ```text
//! i, f, o = σ(aᵢ), σ(a_f), σ(aₒ)    g = tanh(a_g)    c' = f·c + i·g    h' = o·tanh(c')
//! ```
//!
//! GRU (Cho et al. 2014, as PyTorch has it: the reset gate applies after the product) from
//! `a = W·x + b` and `u = U·h + b'`:
//!
//! ```text
//! r, z = σ(aᵣ + uᵣ), σ(a_z + u_z)    n = tanh(aₙ + r·uₙ)    h' = (1 - z)·n + z·h
//! ```
//!
//! The gates of a row are concatenated in that order (`i f g o`, `r z n`). The backward pass reads
//! the gates after their activations, as the forward pass leaves them.

use super::tanh::{sigmoid_lanes, tanh_lanes};
use crate::kernels::extent::size;
use crate::kernels::parallel::{self, Parts};
use crate::kernels::simd::{Isa, SimdOp, dispatch};

/// The approximate time for a unit of one row, in nanoseconds.
const NS: f32 = 2.0;

/// The arithmetic of a cell for one row: `N` inputs, `M` outputs, some of which are inputs as well.
trait Cell<const N: usize, const M: usize>: Copy + Sync {
    /// Implementations are `#[inline(always)]`.
    fn row<I: Isa>(self, isa: I, hidden: usize, inputs: [&[f32]; N], outputs: [&mut [f32]; M]);
}

/// Runs a cell over rows of `gates · hidden` numbers each, on several threads if worthwhile.
#[track_caller]
fn step<const N: usize, const M: usize, C: Cell<N, M>>(
    cell: C,
    hidden: usize,
    inputs: [(&[f32], usize); N],
    outputs: [(&mut [f32], usize); M],
) {
    let rows = size([outputs[0].1, hidden]).and_then(|cols| outputs[0].0.len().checked_div(cols)).unwrap_or(0);
    let lengths =
        inputs.iter().map(|(x, gates)| (x.len(), gates)).chain(outputs.iter().map(|(y, gates)| (y.len(), gates)));
    for (len, gates) in lengths {
        let expected = size([rows, *gates, hidden]);
        assert_eq!(Some(len), expected, "recurrent cell: {rows} rows of {gates} · {hidden} elements");
    }
    if rows == 0 {
        return;
    }
    let chunk = parallel::chunk_len(rows, 1, NS * hidden as f32);
    let outputs = outputs.map(|(y, gates)| (Parts::new(y, chunk * gates * hidden), gates * hidden));
    parallel::for_each(rows.div_ceil(chunk), |i| {
        // SAFETY: each task takes the parts with its own index.
        let outputs = outputs.each_ref().map(|(y, cols)| (unsafe { y.get(i) }, *cols));
        let first = i * chunk;
        let last = rows.min(first + chunk);
        let inputs = inputs.map(|(x, gates)| (&x[first * gates * hidden..last * gates * hidden], gates * hidden));
        dispatch(Chunk { cell, hidden, rows: last - first, inputs, outputs });
    });
}

/// Some rows of a step, with the number of columns of each slice.
struct Chunk<'a, const N: usize, const M: usize, C> {
    cell: C,
    hidden: usize,
    rows: usize,
    inputs: [(&'a [f32], usize); N],
    outputs: [(&'a mut [f32], usize); M],
}

impl<const N: usize, const M: usize, C: Cell<N, M>> SimdOp for Chunk<'_, N, M, C> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        for row in 0..self.rows {
            let inputs = self.inputs.map(|(x, cols)| &x[row * cols..(row + 1) * cols]);
            let outputs = self.outputs.each_mut().map(|(y, cols)| &mut y[row * *cols..(row + 1) * *cols]);
            self.cell.row(isa, self.hidden, inputs, outputs);
        }
    }
}

/// Loads the vector at element `j` of gate `gate`, or as many elements as there are.
#[inline(always)]
fn get<I: Isa>(isa: I, x: &[f32], hidden: usize, gate: usize, j: usize) -> I::F32 {
    let x = &x[gate * hidden..(gate + 1) * hidden];
    if j + I::LANES <= hidden { isa.load(&x[j..]) } else { isa.load_partial(&x[j..]) }
}

/// Stores the vector at element `j` of gate `gate`.
#[inline(always)]
fn put<I: Isa>(isa: I, y: &mut [f32], hidden: usize, gate: usize, j: usize, v: I::F32) {
    let y = &mut y[gate * hidden..(gate + 1) * hidden];
    if j + I::LANES <= hidden { isa.store(&mut y[j..], v) } else { isa.store_partial(&mut y[j..], v) }
}

/// Computes a step of an LSTM. `gates` holds the values before the activations on entry and after
/// them on return; `c` and `h` receive the new cell and hidden state.
///
/// # Shapes
///
/// `gates: [rows, 4 · hidden]`; `c_prev`, `c`, `h`: `[rows, hidden]`.
///
/// # Panics
///
/// If the lengths do not match.
pub fn lstm_step(hidden: usize, gates: &mut [f32], c_prev: &[f32], c: &mut [f32], h: &mut [f32]) {
    step(LstmStep, hidden, [(c_prev, 1)], [(gates, 4), (c, 1), (h, 1)]);
}

#[derive(Clone, Copy)]
struct LstmStep;

impl Cell<1, 3> for LstmStep {
    #[inline(always)]
    fn row<I: Isa>(self, isa: I, hidden: usize, [c_prev]: [&[f32]; 1], [gates, c, h]: [&mut [f32]; 3]) {
        for j in (0..hidden).step_by(I::LANES) {
            let [i, f, o] = [0, 1, 3].map(|gate| sigmoid_lanes(isa, get(isa, gates, hidden, gate, j)));
            let g = tanh_lanes(isa, get(isa, gates, hidden, 2, j));
            let cell = isa.mul_add(f, get(isa, c_prev, hidden, 0, j), isa.mul(i, g));
            put(isa, c, hidden, 0, j, cell);
            put(isa, h, hidden, 0, j, isa.mul(o, tanh_lanes(isa, cell)));
            for (gate, v) in [i, f, g, o].into_iter().enumerate() {
                put(isa, gates, hidden, gate, j, v);
            }
        }
    }
}

/// Computes the backward pass of [`lstm_step`]. `dc` holds the gradient of the new cell state on
/// entry and that of the old one on return.
///
/// # Shapes
///
/// `gates`, `dgates: [rows, 4 · hidden]`; the others `[rows, hidden]`.
pub fn lstm_step_backward(
    hidden: usize,
    dh: &[f32],
    gates: &[f32],
    c_prev: &[f32],
    c: &[f32],
    dc: &mut [f32],
    dgates: &mut [f32],
) {
    step(LstmBackward, hidden, [(dh, 1), (gates, 4), (c_prev, 1), (c, 1)], [(dc, 1), (dgates, 4)]);
}

#[derive(Clone, Copy)]
struct LstmBackward;

impl Cell<4, 2> for LstmBackward {
    #[inline(always)]
    fn row<I: Isa>(self, isa: I, hidden: usize, [dh, gates, c_prev, c]: [&[f32]; 4], [dc, dgates]: [&mut [f32]; 2]) {
        let one = isa.splat(1.0);
        // dx for y = σ(x) and for y = tanh x
        let dsigmoid = |dy, y| isa.mul(isa.mul(dy, y), isa.sub(one, y));
        let dtanh = |dy, y| isa.mul(dy, isa.neg_mul_add(y, y, one));
        for j in (0..hidden).step_by(I::LANES) {
            let [i, f, g, o] = [0, 1, 2, 3].map(|gate| get(isa, gates, hidden, gate, j));
            let dh = get(isa, dh, hidden, 0, j);
            let tanh_c = tanh_lanes(isa, get(isa, c, hidden, 0, j));
            let dcell = isa.add(get(isa, dc, hidden, 0, j), dtanh(isa.mul(dh, o), tanh_c));
            put(isa, dgates, hidden, 0, j, dsigmoid(isa.mul(dcell, g), i));
            put(isa, dgates, hidden, 1, j, dsigmoid(isa.mul(dcell, get(isa, c_prev, hidden, 0, j)), f));
            put(isa, dgates, hidden, 2, j, dtanh(isa.mul(dcell, i), g));
            put(isa, dgates, hidden, 3, j, dsigmoid(isa.mul(dh, tanh_c), o));
            put(isa, dc, hidden, 0, j, isa.mul(dcell, f));
        }
    }
}

/// Computes a step of a GRU. `gates` holds `W·x + b` on entry and the gates on return; `products`
/// is `U·h + b'`, whose last third is stored in `kept` for the backward pass.
///
/// # Shapes
///
/// `gates`, `products: [rows, 3 · hidden]`; `h_prev`, `kept`, `h`: `[rows, hidden]`.
pub fn gru_step(hidden: usize, products: &[f32], h_prev: &[f32], gates: &mut [f32], kept: &mut [f32], h: &mut [f32]) {
    step(GruStep, hidden, [(products, 3), (h_prev, 1)], [(gates, 3), (kept, 1), (h, 1)]);
}

#[derive(Clone, Copy)]
struct GruStep;

impl Cell<2, 3> for GruStep {
    #[inline(always)]
    fn row<I: Isa>(self, isa: I, hidden: usize, [products, h_prev]: [&[f32]; 2], [gates, kept, h]: [&mut [f32]; 3]) {
        for j in (0..hidden).step_by(I::LANES) {
            let sum = |gate| isa.add(get(isa, gates, hidden, gate, j), get(isa, products, hidden, gate, j));
            let [r, z] = [0, 1].map(|gate| sigmoid_lanes(isa, sum(gate)));
            let product = get(isa, products, hidden, 2, j);
            let n = tanh_lanes(isa, isa.mul_add(r, product, get(isa, gates, hidden, 2, j)));
            // (1 - z)·n + z·h = n + z·(h - n)
            let new = isa.mul_add(z, isa.sub(get(isa, h_prev, hidden, 0, j), n), n);
            put(isa, h, hidden, 0, j, new);
            put(isa, kept, hidden, 0, j, product);
            for (gate, v) in [r, z, n].into_iter().enumerate() {
                put(isa, gates, hidden, gate, j, v);
            }
        }
    }
}

/// Computes the backward pass of [`gru_step`]. `dh` holds the gradient of the new state on entry;
/// on return, that of the old state except for the part that flows through `products`.
///
/// # Shapes
///
/// `gates`, `dgates` (of `W·x + b`), `dproducts: [rows, 3 · hidden]`; the others `[rows, hidden]`.
pub fn gru_step_backward(
    hidden: usize,
    gates: &[f32],
    kept: &[f32],
    h_prev: &[f32],
    dh: &mut [f32],
    dgates: &mut [f32],
    dproducts: &mut [f32],
) {
    step(GruBackward, hidden, [(gates, 3), (kept, 1), (h_prev, 1)], [(dh, 1), (dgates, 3), (dproducts, 3)]);
}

#[derive(Clone, Copy)]
struct GruBackward;

impl Cell<3, 3> for GruBackward {
    #[inline(always)]
    fn row<I: Isa>(
        self,
        isa: I,
        hidden: usize,
        [gates, kept, h_prev]: [&[f32]; 3],
        [dh, dgates, dproducts]: [&mut [f32]; 3],
    ) {
        let one = isa.splat(1.0);
        for j in (0..hidden).step_by(I::LANES) {
            let [r, z, n] = [0, 1, 2].map(|gate| get(isa, gates, hidden, gate, j));
            let dnew = get(isa, dh, hidden, 0, j);
            let keep = isa.sub(one, z);
            // h' = (1 - z)·n + z·h;  n = tanh(aₙ + r·uₙ)
            let dn = isa.mul(isa.mul(dnew, keep), isa.neg_mul_add(n, n, one));
            let dz = isa.mul(isa.mul(isa.mul(dnew, isa.sub(get(isa, h_prev, hidden, 0, j), n)), z), keep);
            let dr = isa.mul(isa.mul(isa.mul(dn, get(isa, kept, hidden, 0, j)), r), isa.sub(one, r));
            for (gate, v) in [dr, dz, dn].into_iter().enumerate() {
                put(isa, dgates, hidden, gate, j, v);
            }
            for (gate, v) in [dr, dz, isa.mul(dn, r)].into_iter().enumerate() {
                put(isa, dproducts, hidden, gate, j, v);
            }
            put(isa, dh, hidden, 0, j, isa.mul(dnew, z));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, random};
    use super::*;
    use crate::kernels::simd::for_each_level;

    const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 7), (2, 16), (5, 33), (1, 100), (300, 64)];

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn lstm_matches_the_formula() {
        for_each_level(|_| {
            for (rows, hidden) in SHAPES {
                let (before, c_prev) = (random(rows * 4 * hidden, 1), random(rows * hidden, 2));
                let mut gates = before.clone();
                let (mut c, mut h) = (vec![7.0; c_prev.len()], vec![7.0; c_prev.len()]);
                lstm_step(hidden, &mut gates, &c_prev, &mut c, &mut h);
                let (mut c_expected, mut h_expected) = (c.clone(), h.clone());
                for at in 0..rows * hidden {
                    let gate = |gate| before[at / hidden * 4 * hidden + gate * hidden + at % hidden];
                    c_expected[at] = sigmoid(gate(1)) * c_prev[at] + sigmoid(gate(0)) * gate(2).tanh();
                    h_expected[at] = sigmoid(gate(3)) * c_expected[at].tanh();
                }
                assert_close(&c, &c_expected, 1e-6);
                assert_close(&h, &h_expected, 1e-6);
            }
        });
    }

    #[test]
    fn gru_matches_the_formula() {
        for_each_level(|_| {
            for (rows, hidden) in SHAPES {
                let (before, products) = (random(rows * 3 * hidden, 1), random(rows * 3 * hidden, 2));
                let h_prev = random(rows * hidden, 3);
                let mut gates = before.clone();
                let (mut kept, mut h) = (vec![7.0; h_prev.len()], vec![7.0; h_prev.len()]);
                gru_step(hidden, &products, &h_prev, &mut gates, &mut kept, &mut h);
                let mut expected = h.clone();
                for at in 0..rows * hidden {
                    let place = |gate| at / hidden * 3 * hidden + gate * hidden + at % hidden;
                    let sum = |gate| before[place(gate)] + products[place(gate)];
                    let n = (before[place(2)] + sigmoid(sum(0)) * products[place(2)]).tanh();
                    let z = sigmoid(sum(1));
                    expected[at] = (1.0 - z) * n + z * h_prev[at];
                    assert_eq!(kept[at], products[place(2)]);
                }
                assert_close(&h, &expected, 1e-6);
            }
        });
    }

    #[test]
    #[should_panic(expected = "2 rows of 1 · 3 elements")]
    fn lengths_that_do_not_fit_panic() {
        lstm_step(3, &mut [0.0; 24], &[0.0; 5], &mut [0.0; 6], &mut [0.0; 6]);
    }
}
