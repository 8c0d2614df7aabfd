//! The loop over the steps, forward and backward: one large product for all inputs; then, for each
//! lane and step, a small one and the gates.

use std::iter::once;
use std::ops::Range;

use super::Cell;
use super::lanes::Lanes;
use super::schedule::Schedule;
use crate::kernels::gemm::{Beta, Epilogue, Factor, Mat, gemm, gemm_in, with_packed};
use crate::kernels::{parallel, vecmath};
use crate::ops::Activation;
use crate::ops::precision::{Precision, precision};
use crate::tensor::Tensor;

/// Weights detached from the tape.
pub(super) struct Weights {
    /// `[gates · hidden, input]`.
    pub(super) ih: Tensor,
    /// `[gates · hidden, hidden]`.
    pub(super) hh: Tensor,
    pub(super) bias_ih: Option<Tensor>,
    pub(super) bias_hh: Option<Tensor>,
}

/// Values of the forward pass that the backward pass needs. Rows are packed, see [`Schedule`].
pub(super) struct Scan {
    cell: Cell,
    schedule: Schedule,
    weights: Weights,
    hidden: usize,
    input: usize,
    /// The precision of the products over all steps; those of a single step are in f32.
    precision: Precision,
    /// `[rows, input]`.
    x: Tensor,
    /// Gates after their activations (before it for a plain RNN), `[rows, gates · hidden]`.
    gates: Tensor,
    /// The part of a GRU's product that the reset gate applies to, `[rows, hidden]`.
    kept: Tensor,
    /// The initial states, longest sequence first, then those of the packed rows:
    /// `[batch + rows, hidden]`.
    h: Tensor,
    c: Tensor,
}

/// Gradients of all inputs.
pub(super) struct Gradients {
    pub(super) x: Tensor,
    pub(super) weight_ih: Tensor,
    pub(super) weight_hh: Tensor,
    pub(super) bias_ih: Tensor,
    pub(super) bias_hh: Tensor,
    pub(super) h: Tensor,
    pub(super) c: Tensor,
}

/// Returns rows of `x` by id.
fn gather(x: &[f32], width: usize, ids: &[u32]) -> Tensor {
    Tensor::write(&[ids.len(), width], |y| vecmath::gather(x, width, ids, y))
}

/// Copies row `i` of `x` to row `ids[i]` of `y`; the ids are distinct.
fn scatter(x: &[f32], width: usize, ids: &[u32], y: &mut [f32]) {
    for (x, &id) in x.chunks_exact(width.max(1)).zip(ids) {
        y[id as usize * width..][..width].copy_from_slice(x);
    }
}

/// Computes `xᵀ·y` for matrices with the same number of rows.
fn product_of_columns(precision: Precision, x: &Tensor, y: &[f32], width: usize) -> Tensor {
    let (rows, cols) = (x.shape()[0], x.shape()[1]);
    Tensor::write(&[cols, width], |c| {
        let (x, y) = (Mat::new(x.data(), rows, cols).t(), Mat::new(y, rows, width));
        gemm_in(precision, x, y, c, Beta::Zero, Epilogue::default());
    })
}

fn sum_rows(x: &Tensor) -> Tensor {
    let cols = x.shape()[1];
    Tensor::write(&[cols], |sum| match x.is_empty() {
        true => sum.fill(0.0),
        false => vecmath::sum_rows(x.data(), cols, sum, false),
    })
}

impl Scan {
    /// Processes `x` from the states `h` and `c`, `[batch, hidden]`.
    pub(super) fn forward(
        cell: Cell,
        schedule: Schedule,
        weights: Weights,
        x: &Tensor,
        h_0: Option<&Tensor>,
        c_0: Option<&Tensor>,
    ) -> Self {
        let (input, hidden) = (weights.ih.shape()[1], weights.hh.shape()[1]);
        let (batch, rows, width) = (schedule.batch, schedule.rows.len(), cell.gates() * hidden);
        let x = if schedule.is_identity() {
            x.detach().view(&[rows, input])
        } else {
            gather(x.data(), input, &schedule.rows)
        };
        let first = |state: Option<&Tensor>, y: &mut [f32]| match state {
            Some(state) => vecmath::gather(state.data(), hidden, &schedule.order, &mut y[..batch * hidden]),
            None => y[..batch * hidden].fill(0.0),
        };
        // The two biases of a cell that only adds its products are one bias.
        let bias = match (&weights.bias_ih, &weights.bias_hh) {
            (Some(a), Some(b)) if cell != Cell::Gru => {
                Some(Tensor::write(&[width], |y| vecmath::add(a.data(), b.data(), y)))
            }
            (None, Some(b)) if cell != Cell::Gru => Some(b.clone()),
            (a, _) => a.clone(),
        };
        let precision = precision();
        let mut gates = Tensor::write(&[rows, width], |gates| {
            let epilogue = Epilogue { bias: bias.as_ref().map(Tensor::data), ..Epilogue::default() };
            let ih = Mat::transposed(weights.ih.data(), input, width);
            gemm_in(precision, Mat::new(x.data(), rows, input), ih, gates, Beta::Zero, epilogue);
        });
        let states = |used: bool| if used { batch + rows } else { 0 };
        let mut h = Tensor::write(&[states(true), hidden], |h| first(h_0, h));
        let is_lstm = cell == Cell::Lstm;
        let mut c = Tensor::write(&[states(is_lstm), hidden], |c| {
            if is_lstm {
                first(c_0, c)
            }
        });
        let kept_rows = if cell == Cell::Gru { rows } else { 0 };
        let mut kept = Tensor::write(&[kept_rows, hidden], |_| ());
        let mut products = Tensor::write(&[if cell == Cell::Gru { batch } else { 0 }, width], |_| ());

        {
            let lanes = Lanes::new(&schedule, 4 * weights.hh.len());
            let with_first = || once(batch).chain(schedule.active());
            let gates = lanes.cut(schedule.active(), width, gates.make_mut()).into_iter();
            let h = lanes.cut(with_first(), hidden, h.make_mut());
            let c = lanes.cut(with_first(), hidden, c.make_mut());
            let kept = lanes.cut(schedule.active(), hidden, kept.make_mut());
            let products = lanes.cut(once(batch), width, products.make_mut());
            let mut lanes: Vec<_> = (gates.zip(h).zip(c).zip(kept).zip(products))
                .map(|((((gates, h), c), kept), products)| ForwardLane { gates, h, c, kept, products })
                .collect();
            let hh = Mat::transposed(weights.hh.data(), hidden, width);
            with_factor(hh, schedule.steps(), |hh| {
                parallel::chunks_mut(&mut lanes, 1, |_, lane| lane[0].run(cell, hidden, hh, weights.bias_hh.as_ref()));
            });
        }
        Self { cell, schedule, weights, hidden, input, precision, x, gates, kept, h, c }
    }

    /// Returns the hidden states of all positions, `[batch, seq_len, hidden]` with zeros in the
    /// padding, then the last hidden states `[batch, hidden]`, then, for an LSTM, the last cell
    /// states.
    pub(super) fn output(&self) -> Tensor {
        let Self { schedule, hidden, .. } = self;
        let (states, positions) = (schedule.batch * hidden, schedule.batch * schedule.seq_len * hidden);
        let last = schedule.last();
        Tensor::write(&[positions + states * self.cell.states()], |y| {
            let (y, ends) = y.split_at_mut(positions);
            if !schedule.is_full() {
                y.fill(0.0);
            }
            scatter(&self.h.data()[states..], *hidden, &schedule.rows, y);
            let (h_n, c_n) = ends.split_at_mut(states);
            vecmath::gather(self.h.data(), *hidden, &last, h_n);
            if !c_n.is_empty() {
                vecmath::gather(self.c.data(), *hidden, &last, c_n);
            }
        })
    }

    /// Computes the gradients of all inputs from that of [`Scan::output`].
    pub(super) fn backward(&self, doutput: &Tensor) -> Gradients {
        let Self { cell, schedule, weights, hidden, input, .. } = self;
        let (cell, hidden, input) = (*cell, *hidden, *input);
        let (batch, rows, width) = (schedule.batch, schedule.rows.len(), cell.gates() * hidden);
        let (dy, ends) = doutput.data().split_at(batch * schedule.seq_len * hidden);
        let (dh_n, dc_n) = ends.split_at(batch * hidden);
        // The gradient of the output state of the current step, longest sequence first.
        let mut dh = gather(dh_n, hidden, &schedule.order);
        let mut dc =
            if cell == Cell::Lstm { gather(dc_n, hidden, &schedule.order) } else { Tensor::zeros(&[0, hidden]) };
        let mut dgates = Tensor::write(&[rows, width], |_| ());
        let mut dproducts = Tensor::write(&[if cell == Cell::Gru { rows } else { 0 }, width], |_| ());

        {
            let lanes = Lanes::new(schedule, 4 * weights.hh.len());
            let rows = lanes.rows(schedule).into_iter();
            let dh = lanes.cut(once(batch), hidden, dh.make_mut());
            let dc = lanes.cut(once(batch), hidden, dc.make_mut());
            let dgates = lanes.cut(schedule.active(), width, dgates.make_mut());
            let dproducts = lanes.cut(schedule.active(), width, dproducts.make_mut());
            let mut lanes: Vec<_> = (rows.zip(dh).zip(dc).zip(dgates).zip(dproducts))
                .map(|((((rows, dh), dc), dgates), dproducts)| BackwardLane { rows, dh, dc, dgates, dproducts })
                .collect();
            with_factor(Mat::new(weights.hh.data(), width, hidden), schedule.steps(), |hh| {
                parallel::chunks_mut(&mut lanes, 1, |_, lane| lane[0].run(self, hh, dy));
            });
        }
        let dproducts = if cell == Cell::Gru { &dproducts } else { &dgates };
        // The state before each packed row; contiguous if all sequences are equally long.
        let gathered;
        let h_old = if schedule.is_full() {
            &self.h.data()[..rows * hidden]
        } else {
            let before: Vec<u32> =
                (0..schedule.steps()).flat_map(|s| schedule.before(s)).map(|row| row as u32).collect();
            gathered = gather(self.h.data(), hidden, &before);
            gathered.data()
        };
        let mut dx = Tensor::write(&[rows, input], |dx| {
            let ih = Mat::new(weights.ih.data(), width, input);
            let dgates = Mat::new(dgates.data(), rows, width);
            gemm_in(self.precision, dgates, ih, dx, Beta::Zero, Epilogue::default());
        });
        let x_shape = [batch, schedule.seq_len, input];
        dx = match schedule.is_identity() {
            true => dx.view(&x_shape),
            false => Tensor::write(&x_shape, |y| {
                if !schedule.is_full() {
                    y.fill(0.0);
                }
                scatter(dx.data(), input, &schedule.rows, y);
            }),
        };
        let in_order =
            |states: &Tensor| Tensor::write(&[batch, hidden], |y| scatter(states.data(), hidden, &schedule.order, y));
        Gradients {
            x: dx,
            weight_ih: product_of_columns(self.precision, &dgates, self.x.data(), input),
            weight_hh: product_of_columns(self.precision, dproducts, h_old, hidden),
            bias_ih: sum_rows(&dgates),
            bias_hh: sum_rows(dproducts),
            h: in_order(&dh),
            c: if cell == Cell::Lstm { in_order(&dc) } else { Tensor::zeros(&[0, hidden]) },
        }
    }
}

/// Calls `f` with the recurrent weights, packed if several steps read them.
fn with_factor<R>(hh: Mat<'_>, steps: usize, f: impl FnOnce(Factor<'_>) -> R) -> R {
    if steps > 1 { with_packed(hh, f) } else { f(hh.into()) }
}

/// The output of a lane in the forward pass: its rows of each step, preceded for the states by
/// those before the first step.
struct ForwardLane<'a> {
    gates: Vec<&'a mut [f32]>,
    h: Vec<&'a mut [f32]>,
    c: Vec<&'a mut [f32]>,
    kept: Vec<&'a mut [f32]>,
    /// For a GRU, memory for the products of a step: one part.
    products: Vec<&'a mut [f32]>,
}

impl ForwardLane<'_> {
    fn run(&mut self, cell: Cell, hidden: usize, hh: Factor<'_>, bias_hh: Option<&Tensor>) {
        let width = cell.gates() * hidden;
        for (step, gates) in self.gates.iter_mut().enumerate() {
            let rows = gates.len() / width;
            let (h_old, h_new) = self.h.split_at_mut(step + 1);
            let (h_old, h_new) = (&h_old[step][..rows * hidden], &mut *h_new[0]);
            let product = |c: &mut [f32], beta, epilogue| gemm(Mat::new(h_old, rows, hidden), hh, c, beta, epilogue);
            match cell {
                Cell::RnnTanh | Cell::RnnRelu => {
                    product(gates, Beta::One, Epilogue::default());
                    vecmath::activation(cell.activation(), gates, h_new);
                }
                Cell::Lstm => {
                    product(gates, Beta::One, Epilogue::default());
                    let (c_old, c_new) = self.c.split_at_mut(step + 1);
                    vecmath::lstm_step(hidden, gates, &c_old[step][..rows * hidden], c_new[0], h_new);
                }
                Cell::Gru => {
                    let products = &mut self.products[0][..rows * width];
                    product(products, Beta::Zero, Epilogue { bias: bias_hh.map(Tensor::data), ..Epilogue::default() });
                    vecmath::gru_step(hidden, products, h_old, gates, self.kept[step], h_new);
                }
            }
        }
    }
}

/// The output of a lane in the backward pass, and the rows of each step that it reads.
struct BackwardLane<'a> {
    rows: Vec<Range<usize>>,
    /// Gradients of the output states of the current step, one row per slot: one part.
    dh: Vec<&'a mut [f32]>,
    dc: Vec<&'a mut [f32]>,
    dgates: Vec<&'a mut [f32]>,
    dproducts: Vec<&'a mut [f32]>,
}

impl BackwardLane<'_> {
    fn run(&mut self, scan: &Scan, hh: Factor<'_>, dy: &[f32]) {
        let Scan { cell, schedule, hidden, .. } = scan;
        let (cell, hidden) = (*cell, *hidden);
        let (batch, width) = (schedule.batch, cell.gates() * hidden);
        for (step, rows) in self.rows.iter().enumerate().rev() {
            // The states before the first step precede all rows.
            let skipped = rows.start - schedule.step(step).start;
            let before = schedule.before(step).start + skipped;
            let before = before * hidden..(before + rows.len()) * hidden;
            let states = rows.start * hidden..rows.end * hidden;
            let after = states.start + batch * hidden..states.end + batch * hidden;
            let gates = &scan.gates.data()[rows.start * width..rows.end * width];
            let dh = &mut self.dh[0][..rows.len() * hidden];
            for (dh, &row) in dh.chunks_exact_mut(hidden).zip(&schedule.rows[rows.clone()]) {
                vecmath::add_assign(dh, &dy[row as usize * hidden..][..hidden]);
            }
            let product =
                |a: &[f32], c: &mut [f32], beta| gemm(Mat::new(a, rows.len(), width), hh, c, beta, Epilogue::default());
            let dgates = &mut *self.dgates[step];
            match cell {
                Cell::RnnTanh | Cell::RnnRelu => {
                    vecmath::activation_backward(cell.activation(), dh, gates, dgates);
                    product(dgates, dh, Beta::Zero);
                }
                Cell::Lstm => {
                    let (c_old, c_new) = (&scan.c.data()[before], &scan.c.data()[after]);
                    vecmath::lstm_step_backward(hidden, dh, gates, c_old, c_new, &mut self.dc[0][..dh.len()], dgates);
                    product(dgates, dh, Beta::Zero);
                }
                Cell::Gru => {
                    let (kept, h_old) = (&scan.kept.data()[states], &scan.h.data()[before]);
                    let dproducts = &mut *self.dproducts[step];
                    vecmath::gru_step_backward(hidden, gates, kept, h_old, dh, dgates, dproducts);
                    product(dproducts, dh, Beta::One);
                }
            }
        }
    }
}

impl Cell {
    /// The activation of a plain RNN.
    fn activation(self) -> Activation {
        if self == Cell::RnnRelu { Activation::Relu } else { Activation::Tanh }
    }
}
