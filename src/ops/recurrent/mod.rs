//! Recurrent networks over whole sequences: plain RNN (Elman 1990), LSTM (Hochreiter, Schmidhuber
//! 1997), GRU (Cho et al. 2014), with the formulas of PyTorch. Those of the gates are in
//! [`kernels::vecmath`](crate::kernels::vecmath).
//!
//! One operation processes a whole batch in one direction: first the products of all inputs, as one
//! product; then each step multiplies by the recurrent weights and applies the gates. Sequences may
//! have different lengths; no step processes padding.
//!
//! | file | content |
//! |---|---|
//! | `schedule` | the positions that each step processes |
//! | `lanes` | distribution of sequences over threads |
//! | `scan` | the loop over the steps, forward and backward |

mod lanes;
mod scan;
mod schedule;

use crate::error::{Error, Result};
use crate::kernels::parallel;
use crate::tensor::{Tensor, tape};
use scan::Scan;
use schedule::Schedule;

/// The kind of a recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `tanh(W·x + b + U·h + b')`.
    RnnTanh,
    /// `max(0, W·x + b + U·h + b')`.
    RnnRelu,
    /// Long short-term memory: input, forget and output gates and a cell state; rows of the weights
    /// in the order `i f g o`.
    Lstm,
    /// Gated recurrent unit: reset and update gates; rows of the weights in the order `r z n`.
    Gru,
}

impl Cell {
    /// Returns the number of rows of the weights per hidden unit.
    pub(crate) fn gates(self) -> usize {
        match self {
            Cell::RnnTanh | Cell::RnnRelu => 1,
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    /// Returns the number of vectors in a state.
    fn states(self) -> usize {
        if self == Cell::Lstm { 2 } else { 1 }
    }
}

/// The weights of one layer in one direction.
#[derive(Clone, Copy)]
pub(crate) struct RecurrentWeights<'a> {
    /// `[gates · hidden, input]`.
    pub weight_ih: &'a Tensor,
    /// `[gates · hidden, hidden]`.
    pub weight_hh: &'a Tensor,
    /// `[gates · hidden]`.
    pub bias_ih: Option<&'a Tensor>,
    /// `[gates · hidden]`; separate from `bias_ih` only in a GRU, where the reset gate applies to
    /// it.
    pub bias_hh: Option<&'a Tensor>,
}

/// A kind of cell and a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recurrent {
    /// The kind of cell.
    pub cell: Cell,
    /// Whether sequences are read from their last position to their first.
    pub reverse: bool,
}

/// The result of [`Recurrent::forward`].
#[derive(Clone, Debug)]
pub(crate) struct RecurrentOutput {
    /// The hidden state at each position, `[batch, seq_len, hidden]`; zero past the end of a
    /// sequence.
    pub y: Tensor,
    /// The hidden state after the last step of each sequence, `[batch, hidden]`.
    pub h_n: Tensor,
    /// The cell state after the last step of each sequence, for an LSTM.
    pub c_n: Option<Tensor>,
}

impl Recurrent {
    /// Processes each sequence from the state `h_0` (and `c_0` for an LSTM; default: zeros). A
    /// sequence of length 0 keeps its state.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, input]`, `h_0`, `c_0: [batch, hidden]`, `lengths: [batch]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match; [`Error::Argument`] if a length is above
    /// `seq_len`, or if there is a `c_0` for another cell than an LSTM.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        h_0: Option<&Tensor>,
        c_0: Option<&Tensor>,
        weights: &RecurrentWeights<'_>,
        lengths: Option<&[usize]>,
    ) -> Result<RecurrentOutput> {
        let (batch, seq_len, hidden) = self.check(x, [h_0, c_0], weights)?;
        let schedule = Schedule::new(batch, seq_len, lengths, self.reverse)?;
        let &RecurrentWeights { weight_ih, weight_hh, bias_ih, bias_hh } = weights;
        let detached = scan::Weights {
            ih: weight_ih.detach(),
            hh: weight_hh.detach(),
            bias_ih: bias_ih.map(Tensor::detach),
            bias_hh: bias_hh.map(Tensor::detach),
        };
        let scan = parallel::team(|| Scan::forward(self.cell, schedule, detached, x, h_0, c_0));
        let given = [Some(x), Some(weight_ih), Some(weight_hh), bias_ih, bias_hh, h_0, c_0];
        let inputs: Vec<&Tensor> = given.into_iter().flatten().collect();
        let all = tape::record("recurrent", &inputs, scan.output(), || {
            let given = given.map(|x| x.is_some());
            Box::new(move |dy, _| {
                let d = parallel::team(|| scan.backward(&dy));
                let all = [d.x, d.weight_ih, d.weight_hh, d.bias_ih, d.bias_hh, d.h, d.c];
                Ok(all.into_iter().zip(given).filter(|(_, given)| *given).map(|(dx, _)| Some(dx)).collect())
            })
        });
        let (positions, states) = (batch * seq_len * hidden, batch * hidden);
        let state = |i: usize| all.narrow(0, positions + i * states, states)?.reshape(&[batch, hidden]);
        Ok(RecurrentOutput {
            y: all.narrow(0, 0, positions)?.reshape(&[batch, seq_len, hidden])?,
            h_n: state(0)?,
            c_n: (self.cell == Cell::Lstm).then(|| state(1)).transpose()?,
        })
    }

    /// Returns batch size, sequence length and hidden size, if all shapes match.
    fn check(
        &self,
        x: &Tensor,
        [h_0, c_0]: [Option<&Tensor>; 2],
        weights: &RecurrentWeights<'_>,
    ) -> Result<(usize, usize, usize)> {
        let &[batch, seq_len, input] = x.shape() else {
            return Err(Error::shape("recurrent", "[batch, seq_len, input]", x.shape()));
        };
        let hidden = weights.weight_hh.last_dim();
        let rows = self.cell.gates() * hidden;
        let mut expected = vec![
            ("weight_hh", Some(weights.weight_hh), vec![rows, hidden]),
            ("weight_ih", Some(weights.weight_ih), vec![rows, input]),
            ("bias_ih", weights.bias_ih, vec![rows]),
            ("bias_hh", weights.bias_hh, vec![rows]),
        ];
        expected.extend([("h_0", h_0, vec![batch, hidden]), ("c_0", c_0, vec![batch, hidden])]);
        for (name, tensor, shape) in expected {
            if let Some(tensor) = tensor.filter(|tensor| tensor.shape() != shape) {
                return Err(Error::shape(format!("recurrent {name}"), format!("{shape:?}"), tensor.shape()));
            }
        }
        if c_0.is_some() && self.cell != Cell::Lstm {
            return Err(Error::argument("recurrent c_0", "none, except for an LSTM", "one"));
        }
        if hidden == 0 {
            return Err(Error::argument("recurrent hidden size", "at least 1", 0));
        }
        Ok((batch, seq_len, hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::ops::concat;
    use crate::ops::gradient_check::{check, sample};

    const CELLS: [Cell; 4] = [Cell::RnnTanh, Cell::RnnRelu, Cell::Lstm, Cell::Gru];

    fn weights(x: &[Tensor]) -> RecurrentWeights<'_> {
        RecurrentWeights { weight_ih: &x[0], weight_hh: &x[1], bias_ih: x.get(2), bias_hh: x.get(3) }
    }

    fn sample_weights(cell: Cell, input: usize, hidden: usize) -> Vec<Tensor> {
        let rows = cell.gates() * hidden;
        let shapes = [vec![rows, input], vec![rows, hidden], vec![rows], vec![rows]];
        (10..).zip(&shapes).map(|(seed, shape)| sample(shape, seed).scale(0.5)).collect()
    }

    /// Concatenates all outputs into one tensor.
    fn joined(output: RecurrentOutput) -> Result<Tensor> {
        let parts = [Some(output.y), Some(output.h_n), output.c_n];
        let flat = parts.into_iter().flatten().map(|x| x.reshape(&[x.len()])).collect::<Result<Vec<_>>>()?;
        concat(&flat.iter().collect::<Vec<_>>(), 0)
    }

    #[test]
    fn nothing_is_computed_past_the_end_of_a_sequence() {
        let mut rng = Rng::seed(1);
        let [weight_ih, weight_hh] = [3, 5].map(|n| Tensor::normal(&[4 * 5, n], 0.5, &mut rng));
        let weights = RecurrentWeights { weight_ih: &weight_ih, weight_hh: &weight_hh, bias_ih: None, bias_hh: None };
        let x = Tensor::normal(&[2, 7, 3], 1.0, &mut rng);
        let lstm = Recurrent { cell: Cell::Lstm, reverse: false };
        let output = lstm.forward(&x, None, None, &weights, Some(&[7, 4])).unwrap();
        assert_eq!((output.y.shape(), output.h_n.shape()), (&[2, 7, 5][..], &[2, 5][..]));
        assert_eq!(output.y.data()[11 * 5..], [0.0; 15]);
    }

    #[test]
    fn gradients_match_central_differences() {
        for cell in CELLS {
            for reverse in [false, true] {
                let op = Recurrent { cell, reverse };
                let x = sample(&[3, 4, 2], 1);
                let mut inputs = sample_weights(cell, 2, 3);
                inputs.extend([x.clone(), sample(&[3, 3], 2)]);
                let name = format!("{op:?}");
                if cell == Cell::Lstm {
                    inputs.push(sample(&[3, 3], 3));
                }
                for lengths in [None, Some(&[2, 4, 0][..])] {
                    check(&name, &inputs, |x| {
                        joined(op.forward(&x[4], Some(&x[5]), x.get(6), &weights(&x[..4]), lengths)?)
                    });
                }
                let mut inputs = sample_weights(cell, 2, 3);
                inputs.truncate(2);
                inputs.push(x);
                check(&name, &inputs, |x| joined(op.forward(&x[2], None, None, &weights(&x[..2]), None)?));
            }
        }
    }

    #[test]
    fn a_sequence_alone_has_the_bits_of_one_in_a_padded_batch() {
        let (x, lengths) = (sample(&[4, 9, 5], 1), [3, 9, 1, 6]);
        for cell in CELLS {
            for reverse in [false, true] {
                let op = Recurrent { cell, reverse };
                let params = sample_weights(cell, 5, 7);
                let batched = op.forward(&x, None, None, &weights(&params), Some(&lengths)).unwrap();
                for (b, len) in lengths.into_iter().enumerate() {
                    let one = x.narrow(0, b, 1).unwrap().narrow(1, 0, len).unwrap();
                    let alone = op.forward(&one, None, None, &weights(&params), None).unwrap();
                    assert_eq!(alone.y.data(), &batched.y.data()[b * 63..][..len * 7], "{op:?}");
                    assert_eq!(alone.h_n.data(), &batched.h_n.data()[b * 7..][..7], "{op:?}");
                    assert!(batched.y.data()[b * 63 + len * 7..][..(9 - len) * 7].iter().all(|&y| y == 0.0));
                }
            }
        }
    }

    #[test]
    fn a_sequence_in_two_parts_has_the_bits_of_one_in_a_whole() {
        let x = sample(&[2, 9, 5], 1);
        for cell in CELLS {
            let op = Recurrent { cell, reverse: false };
            let params = sample_weights(cell, 5, 7);
            let whole = op.forward(&x, None, None, &weights(&params), None).unwrap();
            let run = |start, len, h: Option<&Tensor>, c: Option<&Tensor>| {
                op.forward(&x.narrow(1, start, len).unwrap(), h, c, &weights(&params), None).unwrap()
            };
            let first = run(0, 4, None, None);
            let second = run(4, 5, Some(&first.h_n), first.c_n.as_ref());
            assert_eq!(concat(&[&first.y, &second.y], 1).unwrap().to_vec(), whole.y.to_vec(), "{cell:?}");
            assert_eq!(second.h_n.to_vec(), whole.h_n.to_vec(), "{cell:?}");
        }
    }

    #[test]
    fn empty_batches_are_allowed_and_shapes_that_do_not_fit_are_errors() {
        let params = sample_weights(Cell::Gru, 2, 3);
        let gru = Recurrent { cell: Cell::Gru, reverse: false };
        for shape in [[0, 4, 2], [4, 0, 2]] {
            let output = gru.forward(&Tensor::zeros(&shape), None, None, &weights(&params), None).unwrap();
            assert_eq!((output.y.len(), output.h_n.shape()), (0, &[shape[0], 3][..]));
        }
        let run = |x: &[usize], h: Option<&Tensor>, c: Option<&Tensor>| {
            gru.forward(&Tensor::zeros(x), h, c, &weights(&params), None)
        };
        assert!(run(&[1, 4, 3], None, None).is_err());
        assert!(run(&[4, 2], None, None).is_err());
        assert!(run(&[1, 4, 2], Some(&Tensor::zeros(&[2, 3])), None).is_err());
        assert!(run(&[1, 4, 2], None, Some(&Tensor::zeros(&[1, 3]))).is_err());
    }
}
