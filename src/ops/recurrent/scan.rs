//! The loop over the steps, forward and backward: one large product for all inputs, then a small one and the gates for each
//! step.

use super::Cell;
use super::schedule::Schedule;
use crate::kernels::gemm::{Beta, Epilogue, Mat, PackedB, gemm, gemm_in};
use crate::kernels::vecmath;
use crate::ops::Activation;
use crate::ops::precision::{Precision, precision};
use crate::tensor::Tensor;

/// Weights without a place on the tape.
pub(super) struct Weights {
    /// `[gates · hidden, input]`.
    pub(super) ih: Tensor,
    /// `[gates · hidden, hidden]`.
    pub(super) hh: Tensor,
    pub(super) bias_ih: Option<Tensor>,
    pub(super) bias_hh: Option<Tensor>,
}

/// What the forward leaves for the way back. Rows are packed, see [`Schedule`].
pub(super) struct Scan {
    cell: Cell,
    schedule: Schedule,
    weights: Weights,
    hidden: usize,
    input: usize,
    /// Of the products over all steps at once; those of a single step are in f32.
    precision: Precision,
    /// `[rows, input]`.
    x: Tensor,
    /// Gates after their functions (before it for a plain RNN), `[rows, gates · hidden]`.
    gates: Tensor,
    /// The part of a GRU's product that the reset gate was applied to, `[rows, hidden]`.
    kept: Tensor,
    /// The initial states, longest sequence first, then the rows: `[batch + rows, hidden]`.
    h: Tensor,
    c: Tensor,
}

/// Gradients of everything that went in.
pub(super) struct Gradients {
    pub(super) x: Tensor,
    pub(super) weight_ih: Tensor,
    pub(super) weight_hh: Tensor,
    pub(super) bias_ih: Tensor,
    pub(super) bias_hh: Tensor,
    pub(super) h: Tensor,
    pub(super) c: Tensor,
}

/// Rows of `x` by id.
fn gather(x: &[f32], width: usize, ids: &[u32]) -> Tensor {
    Tensor::write(&[ids.len(), width], |y| vecmath::gather(x, width, ids, y))
}

/// Row `i` of `x` to row `ids[i]` of `y`; no id is there twice.
fn scatter(x: &[f32], width: usize, ids: &[u32], y: &mut [f32]) {
    for (x, &id) in x.chunks_exact(width.max(1)).zip(ids) {
        y[id as usize * width..][..width].copy_from_slice(x);
    }
}

/// `xᵀ·y` for matrices of as many rows.
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
    /// Reads `x` from the states `h` and `c`, `[batch, hidden]`.
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
        // The biases of a cell that only adds its products are one.
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

        let hh = Mat::transposed(weights.hh.data(), hidden, width);
        let packed = (schedule.steps() > 1).then(|| PackedB::new(hh));
        let product = |a: &[f32], c: &mut [f32], beta, epilogue: Epilogue<'_>| {
            let a = Mat::new(a, c.len() / width, hidden);
            match &packed {
                Some(hh) => gemm(a, hh, c, beta, epilogue),
                None => gemm(a, hh, c, beta, epilogue),
            }
        };
        {
            let (gates, h, c) = (gates.make_mut(), h.make_mut(), c.make_mut());
            let (kept, products) = (kept.make_mut(), products.make_mut());
            for step in 0..schedule.steps() {
                let (now, before) = (schedule.step(step), schedule.before(step));
                let split = (batch + now.start) * hidden;
                let (h_old, h_new) = h.split_at_mut(split);
                let (h_old, h_new) =
                    (&h_old[before.start * hidden..before.end * hidden], &mut h_new[..now.len() * hidden]);
                let gates = &mut gates[now.start * width..now.end * width];
                match cell {
                    Cell::RnnTanh | Cell::RnnRelu => {
                        product(h_old, gates, Beta::One, Epilogue::default());
                        vecmath::activation(cell.activation(), gates, h_new);
                    }
                    Cell::Lstm => {
                        product(h_old, gates, Beta::One, Epilogue::default());
                        let (c_old, c_new) = c.split_at_mut(split);
                        let c_old = &c_old[before.start * hidden..before.end * hidden];
                        vecmath::lstm_step(hidden, gates, c_old, &mut c_new[..now.len() * hidden], h_new);
                    }
                    Cell::Gru => {
                        let products = &mut products[..now.len() * width];
                        let bias = weights.bias_hh.as_ref().map(Tensor::data);
                        product(h_old, products, Beta::Zero, Epilogue { bias, ..Epilogue::default() });
                        let kept = &mut kept[now.start * hidden..now.end * hidden];
                        vecmath::gru_step(hidden, products, h_old, gates, kept, h_new);
                    }
                }
            }
        }
        Self { cell, schedule, weights, hidden, input, precision, x, gates, kept, h, c }
    }

    /// The hidden states of all positions, `[batch, seq_len, hidden]` and zero in the padding, then the last hidden states
    /// `[batch, hidden]`, then, of an LSTM, the last cell states.
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

    /// From the gradient of [`Scan::output`] to those of everything that went in.
    pub(super) fn backward(&self, doutput: &Tensor) -> Gradients {
        let Self { cell, schedule, weights, hidden, input, .. } = self;
        let (cell, hidden, input) = (*cell, *hidden, *input);
        let (batch, rows, width) = (schedule.batch, schedule.rows.len(), cell.gates() * hidden);
        let (dy, ends) = doutput.data().split_at(batch * schedule.seq_len * hidden);
        let (dh_n, dc_n) = ends.split_at(batch * hidden);
        // The gradient of the state that the step at hand makes, longest sequence first.
        let mut dh = gather(dh_n, hidden, &schedule.order);
        let mut dc =
            if cell == Cell::Lstm { gather(dc_n, hidden, &schedule.order) } else { Tensor::zeros(&[0, hidden]) };
        let mut dgates = Tensor::write(&[rows, width], |_| ());
        let mut dproducts = Tensor::write(&[if cell == Cell::Gru { rows } else { 0 }, width], |_| ());

        let hh = Mat::new(weights.hh.data(), width, hidden);
        let packed = (schedule.steps() > 1).then(|| PackedB::new(hh));
        let product = |a: &[f32], c: &mut [f32], beta| {
            let a = Mat::new(a, c.len() / hidden, width);
            match &packed {
                Some(hh) => gemm(a, hh, c, beta, Epilogue::default()),
                None => gemm(a, hh, c, beta, Epilogue::default()),
            }
        };
        {
            let (dh, dc) = (dh.make_mut(), dc.make_mut());
            let (dgates, dproducts) = (dgates.make_mut(), dproducts.make_mut());
            for step in (0..schedule.steps()).rev() {
                let (now, before) = (schedule.step(step), schedule.before(step));
                let before = before.start * hidden..before.end * hidden;
                let states = now.start * hidden..now.end * hidden;
                let after = states.start + batch * hidden..states.end + batch * hidden;
                let wide = now.start * width..now.end * width;
                let dh = &mut dh[..now.len() * hidden];
                for (dh, &row) in dh.chunks_exact_mut(hidden).zip(&schedule.rows[now]) {
                    vecmath::add_assign(dh, &dy[row as usize * hidden..][..hidden]);
                }
                let (gates, dgates) = (&self.gates.data()[wide.clone()], &mut dgates[wide.clone()]);
                match cell {
                    Cell::RnnTanh | Cell::RnnRelu => {
                        vecmath::activation_backward(cell.activation(), dh, gates, dgates);
                        product(dgates, dh, Beta::Zero);
                    }
                    Cell::Lstm => {
                        let (c_old, c_new) = (&self.c.data()[before], &self.c.data()[after]);
                        vecmath::lstm_step_backward(hidden, dh, gates, c_old, c_new, &mut dc[..dh.len()], dgates);
                        product(dgates, dh, Beta::Zero);
                    }
                    Cell::Gru => {
                        let (kept, h_old) = (&self.kept.data()[states], &self.h.data()[before]);
                        let dproducts = &mut dproducts[wide];
                        vecmath::gru_step_backward(hidden, gates, kept, h_old, dh, dgates, dproducts);
                        product(dproducts, dh, Beta::One);
                    }
                }
            }
        }
        let dproducts = if cell == Cell::Gru { &dproducts } else { &dgates };
        // The states before each packed row: in place if all sequences are equally long.
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

impl Cell {
    /// Of a plain recurrent network.
    fn activation(self) -> Activation {
        if self == Cell::RnnRelu { Activation::Relu } else { Activation::Tanh }
    }
}
