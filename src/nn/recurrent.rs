//! Recurrent layers: plain RNN, LSTM and GRU; stacked, unidirectional or bidirectional.

use crate::error::{Error, Result};
use crate::nn::dropout::Dropout;
use crate::nn::module::Module;
use crate::nn::parameter::{Init, Parameter, Parameters, join};
use crate::ops::{self, Cell, RecurrentWeights};
use crate::tensor::Tensor;

/// The settings of a recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RecurrentConfig {
    /// Width of the input.
    pub input_size: usize,
    /// Width of the state of each layer and direction.
    pub hidden_size: usize,
    /// The number of stacked layers; each reads the output of the previous one. Default: 1.
    pub num_layers: usize,
    /// Whether there are biases. Default: true.
    pub bias: bool,
    /// Whether each layer reads in both directions and returns both states concatenated. Default:
    /// false.
    pub bidirectional: bool,
    /// Dropout probability between layers, in `[0, 1)`. Default: 0.
    pub dropout: f32,
}

impl RecurrentConfig {
    /// Returns settings with one layer in one direction, with biases, without dropout.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        Self { input_size, hidden_size, num_layers: 1, bias: true, bidirectional: false, dropout: 0.0 }
    }

    /// Sets the number of layers (default: 1).
    pub fn layers(self, num_layers: usize) -> Self {
        Self { num_layers, ..self }
    }

    /// Sets whether the layers are bidirectional (default: false).
    pub fn bidirectional(self, bidirectional: bool) -> Self {
        Self { bidirectional, ..self }
    }

    /// Sets the dropout probability between layers, in `[0, 1)` (default: 0).
    pub fn dropout(self, dropout: f32) -> Self {
        Self { dropout, ..self }
    }

    /// Sets whether there are biases (default: true).
    pub fn bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }
}

/// The state of a recurrent layer between two parts of a sequence.
#[derive(Clone)]
pub struct RecurrentState {
    /// Hidden states, `[num_layers · directions, batch, hidden_size]`: layer by layer, forward
    /// before backward.
    pub h: Tensor,
    /// Cell states of an LSTM, of the same shape.
    pub c: Option<Tensor>,
}

impl std::fmt::Debug for RecurrentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cell = if self.c.is_some() { ", with cell state" } else { "" };
        write!(f, "RecurrentState({:?}{cell})", self.h.shape())
    }
}

/// The parameters of one layer in one direction, under PyTorch's names: `weight_ih_l0`,
/// `weight_hh_l0_reverse`, ….
#[derive(Clone)]
struct Weights {
    /// `_l0`, `_l0_reverse`, ….
    suffix: String,
    weight_ih: Parameter,
    weight_hh: Parameter,
    bias_ih: Option<Parameter>,
    bias_hh: Option<Parameter>,
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({})", self.suffix)
    }
}

impl Module for Weights {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        let mut visit = |name, parameter| f(&join(path, format!("{name}{}", self.suffix)), parameter);
        visit("weight_ih", &self.weight_ih);
        visit("weight_hh", &self.weight_hh);
        self.bias_ih.iter().for_each(|p| visit("bias_ih", p));
        self.bias_hh.iter().for_each(|p| visit("bias_hh", p));
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        let mut visit = |name, parameter: &mut Parameter| f(&join(path, format!("{name}{}", self.suffix)), parameter);
        visit("weight_ih", &mut self.weight_ih);
        visit("weight_hh", &mut self.weight_hh);
        self.bias_ih.iter_mut().for_each(|p| visit("bias_ih", p));
        self.bias_hh.iter_mut().for_each(|p| visit("bias_hh", p));
    }
}

/// A recurrent layer whose cell is chosen at run time; [`Rnn`], [`Lstm`] and [`Gru`] have a fixed
/// one.
///
/// ```
/// use loquat::nn::{Recurrent, RecurrentConfig};
/// use loquat::{Rng, Tensor, ops::Cell};
///
/// let config = RecurrentConfig::new(3, 4).bidirectional(true);
/// let gru = Recurrent::init(Cell::Gru, &config, &mut Rng::seed(1))?;
/// let (y, state) = gru.forward(&Tensor::zeros(&[2, 5, 3]), None, Some(&[5, 2]))?;
/// assert_eq!(y.shape(), [2, 5, 8]); // both directions
/// assert_eq!(state.h.shape(), [2, 2, 4]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Recurrent {
    /// One per layer and direction, layer by layer, forward before backward.
    weights: Vec<Weights>,
    dropout: Dropout,
    cell: Cell,
    config: RecurrentConfig,
}

impl std::fmt::Debug for Recurrent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.describe("Recurrent", f)
    }
}

impl Module for Recurrent {
    fn visit<'m>(&'m self, path: &str, f: &mut dyn FnMut(&str, &'m Parameter)) {
        self.weights.iter().for_each(|weights| weights.visit(path, f));
    }

    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, &mut Parameter)) {
        self.weights.iter_mut().for_each(|weights| weights.visit_mut(path, f));
    }
}

impl Recurrent {
    /// Creates a layer with PyTorch's initial values: all uniform in `±1/√hidden_size`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size or the number of layers is 0; also the errors of
    /// [`Parameters::get`].
    pub fn init<'a>(cell: Cell, config: &RecurrentConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        let mut p = p.into();
        let &RecurrentConfig { input_size, hidden_size, num_layers, bias, bidirectional, dropout } = config;
        if hidden_size == 0 || num_layers == 0 {
            let found = format!("hidden_size {hidden_size}, num_layers {num_layers}");
            return Err(Error::argument("recurrent layer", "a hidden size and layers above 0", found));
        }
        let directions = 1 + usize::from(bidirectional);
        let uniform = Init::Uniform { bound: 1.0 / (hidden_size as f32).sqrt() };
        let rows = cell.gates().saturating_mul(hidden_size);
        let mut weights = Vec::new();
        for layer in 0..num_layers {
            let input = if layer == 0 { input_size } else { directions * hidden_size };
            for direction in 0..directions {
                let suffix = format!("_l{layer}{}", ["", "_reverse"][direction]);
                let mut get = |name: &str, shape: &[usize]| p.get(&format!("{name}{suffix}"), shape, uniform);
                let weight_ih = get("weight_ih", &[rows, input])?;
                let weight_hh = get("weight_hh", &[rows, hidden_size])?;
                let bias_ih = bias.then(|| get("bias_ih", &[rows])).transpose()?;
                let bias_hh = bias.then(|| get("bias_hh", &[rows])).transpose()?;
                weights.push(Weights { suffix, weight_ih, weight_hh, bias_ih, bias_hh });
            }
        }
        Ok(Self { weights, dropout: Dropout::new(dropout), cell, config: *config })
    }

    /// Prints the line for `Debug`.
    fn describe(&self, name: &str, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RecurrentConfig { input_size, hidden_size, num_layers, bias, bidirectional, dropout } = self.config;
        let cell = if name == "Recurrent" { format!("{:?}, ", self.cell) } else { String::new() };
        write!(f, "{name}({cell}{input_size} -> {hidden_size}, num_layers={num_layers}")?;
        let [both, bias] =
            [(bidirectional, ", bidirectional"), (bias, ", bias")].map(|(is, text)| if is { text } else { "" });
        let dropout = if dropout > 0.0 { format!(", dropout={dropout}") } else { String::new() };
        write!(f, "{both}{bias}{dropout}, {})", self.weights[0].weight_ih.weight().format_name())
    }

    /// Returns the kind of cell.
    pub fn cell(&self) -> Cell {
        self.cell
    }

    /// Returns the layer's settings.
    pub fn config(&self) -> &RecurrentConfig {
        &self.config
    }

    /// Processes sequences from `state` (default: zeros), each up to its length. Returns the top
    /// layer's hidden states at every position, and the state of all layers after the end of each
    /// sequence. Outputs past the end are zero.
    ///
    /// # Shapes
    /// `x: [batch, seq_len, input_size]`, `lengths: [batch]` →
    /// `[batch, seq_len, directions · hidden_size]`.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Argument`] if the shapes do not match or a length is out of
    /// range.
    pub fn forward(
        &self,
        x: &Tensor,
        state: Option<&RecurrentState>,
        lengths: Option<&[usize]>,
    ) -> Result<(Tensor, RecurrentState)> {
        let directions = 1 + usize::from(self.config.bidirectional);
        let batch = x.shape().first().copied().unwrap_or(0);
        if let Some(state) = state {
            let expected = [self.weights.len(), batch, self.config.hidden_size];
            if state.c.is_some() != (self.cell == Cell::Lstm) {
                return Err(Error::argument(
                    "recurrent state",
                    if self.cell == Cell::Lstm {
                        "a cell state, for an LSTM"
                    } else {
                        "no cell state, which only an LSTM has"
                    },
                    if state.c.is_some() { "one" } else { "none" },
                ));
            }
            if let Some(states) =
                [Some(&state.h), state.c.as_ref()].into_iter().flatten().find(|s| s.shape() != expected)
            {
                return Err(Error::shape("recurrent state", format!("{expected:?}"), states.shape()));
            }
        }
        let of = |states: Option<&Tensor>, i: usize| {
            states.map(|s| s.narrow(0, i, 1)?.reshape(&[batch, self.config.hidden_size])).transpose()
        };
        let mut x = x.clone();
        let (mut h, mut c) = (Vec::new(), Vec::new());
        for (layer, weights) in self.weights.chunks(directions).enumerate() {
            if layer > 0 {
                x = self.dropout.forward(&x)?;
            }
            let mut outputs = Vec::new();
            for (direction, weights) in weights.iter().enumerate() {
                let i = layer * directions + direction;
                let (h_0, c_0) = (of(state.map(|s| &s.h), i)?, of(state.and_then(|s| s.c.as_ref()), i)?);
                let parameters = RecurrentWeights {
                    weight_ih: weights.weight_ih.tensor(),
                    weight_hh: weights.weight_hh.tensor(),
                    bias_ih: weights.bias_ih.as_ref().map(Parameter::tensor),
                    bias_hh: weights.bias_hh.as_ref().map(Parameter::tensor),
                };
                let op = ops::Recurrent { cell: self.cell, reverse: direction == 1 };
                let output = op.forward(&x, h_0.as_ref(), c_0.as_ref(), &parameters, lengths)?;
                outputs.push(output.y);
                h.push(output.h_n);
                c.extend(output.c_n);
            }
            x = match &outputs[..] {
                [y] => y.clone(),
                both => ops::concat(&both.iter().collect::<Vec<_>>(), 2)?,
            };
        }
        let join = |states: &[Tensor]| ops::stack(&states.iter().collect::<Vec<_>>(), 0);
        let c = if c.is_empty() { None } else { Some(join(&c)?) };
        Ok((x, RecurrentState { h: join(&h)?, c }))
    }
}

/// A plain recurrent layer, like `torch.nn.RNN(batch_first=True)`.
///
/// ```
/// use loquat::nn::{RecurrentConfig, Rnn};
/// use loquat::{Rng, Tensor};
///
/// let rnn = Rnn::init(&RecurrentConfig::new(3, 4).bidirectional(true), &mut Rng::seed(1))?;
/// let (y, state) = rnn.forward(&Tensor::zeros(&[2, 5, 3]), None, Some(&[5, 2]))?;
/// assert_eq!((y.shape(), state.h.shape()), (&[2, 5, 8][..], &[2, 2, 4][..]));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Rnn {
    layers: Recurrent,
}

impl std::fmt::Debug for Rnn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.layers.describe("Rnn", f)
    }
}

/// A long short-term memory layer, like `torch.nn.LSTM(batch_first=True)`.
///
/// ```
/// use loquat::nn::{Lstm, RecurrentConfig};
/// use loquat::{Rng, Tensor};
///
/// let lstm = Lstm::init(&RecurrentConfig::new(3, 4).layers(2).dropout(0.1), &mut Rng::seed(1))?;
/// let x = Tensor::zeros(&[2, 5, 3]);
/// let (y, state) = lstm.forward(&x, None, None)?;
/// let (_next, _state) = lstm.forward(&x, Some(&state), None)?; // the next part of the text
/// assert_eq!(y.shape(), [2, 5, 4]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Lstm {
    layers: Recurrent,
}

impl std::fmt::Debug for Lstm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.layers.describe("Lstm", f)
    }
}

/// A gated recurrent unit layer, like `torch.nn.GRU(batch_first=True)`.
///
/// ```
/// use loquat::nn::{Gru, RecurrentConfig};
/// use loquat::{Rng, Tensor};
///
/// let gru = Gru::init(&RecurrentConfig::new(3, 4), &mut Rng::seed(1))?;
/// let (y, _state) = gru.forward(&Tensor::zeros(&[2, 5, 3]), None, None)?;
/// assert_eq!(y.shape(), [2, 5, 4]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct Gru {
    layers: Recurrent,
}

impl std::fmt::Debug for Gru {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.layers.describe("Gru", f)
    }
}

/// Implements a layer with a fixed kind of cell.
macro_rules! layer {
    ($layer:ident, $cell:expr) => {
        crate::module!($layer { layers = "" });

        impl $layer {
            /// Same as [`Recurrent::init`], with this layer's cell.
            ///
            /// # Errors
            /// Same as [`Recurrent::init`].
            pub fn init<'a>(config: &RecurrentConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
                Ok(Self { layers: Recurrent::init($cell, config, p)? })
            }

            /// Same as [`Recurrent::forward`].
            ///
            /// # Errors
            /// Same as [`Recurrent::forward`].
            pub fn forward(
                &self,
                x: &Tensor,
                state: Option<&RecurrentState>,
                lengths: Option<&[usize]>,
            ) -> Result<(Tensor, RecurrentState)> {
                self.layers.forward(x, state, lengths)
            }
        }
    };
}

layer!(Rnn, Cell::RnnTanh);
layer!(Lstm, Cell::Lstm);
layer!(Gru, Cell::Gru);

impl Rnn {
    /// Creates a layer with ReLU instead of tanh.
    ///
    /// # Errors
    /// Same as [`Recurrent::init`].
    pub fn init_relu<'a>(config: &RecurrentConfig, p: impl Into<Parameters<'a>>) -> Result<Self> {
        Ok(Self { layers: Recurrent::init(Cell::RnnRelu, config, p)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::train_mode;
    use crate::ops::gradient_check::{check, sample};
    use crate::random::Rng;

    const CELLS: [Cell; 4] = [Cell::RnnTanh, Cell::RnnRelu, Cell::Lstm, Cell::Gru];

    #[test]
    fn gradients_match_central_differences() {
        for cell in CELLS {
            let config = RecurrentConfig::new(2, 3).layers(2).bidirectional(true);
            let layer = Recurrent::init(cell, &config, &mut Rng::seed(1)).unwrap();
            let mut inputs = vec![sample(&[2, 3, 2], 1), sample(&[4, 2, 3], 2), sample(&[4, 2, 3], 3)];
            inputs.extend(layer.parameters().iter().map(|(_, p)| p.tensor().detach()));
            if cell != Cell::Lstm {
                inputs.remove(2);
            }
            let first = if cell == Cell::Lstm { 3 } else { 2 };
            check(&format!("{cell:?}"), &inputs, |x| {
                let mut layer = layer.clone();
                let mut values = x[first..].iter();
                layer.visit_mut("", &mut |_, p| *p = Parameter::from_tensor(values.next().unwrap().clone()));
                let state = RecurrentState { h: x[1].clone(), c: (first == 3).then(|| x[2].clone()) };
                let (y, state) = layer.forward(&x[0], Some(&state), Some(&[3, 2]))?;
                let parts = [Some(y), Some(state.h), state.c];
                let flat = parts.into_iter().flatten().map(|x| x.reshape(&[x.len()])).collect::<Result<Vec<_>>>()?;
                ops::concat(&flat.iter().collect::<Vec<_>>(), 0)
            });
        }
    }

    #[test]
    fn names_are_those_of_pytorch() {
        let config = RecurrentConfig::new(2, 3).layers(2).bidirectional(true);
        let layer = Gru::init(&config, &mut Rng::seed(1)).unwrap();
        let names: Vec<String> = layer.parameters().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[..2], ["weight_ih_l0", "weight_hh_l0"]);
        assert_eq!(names[6..8], ["bias_ih_l0_reverse", "bias_hh_l0_reverse"]);
        assert_eq!((names.len(), names[15].as_str()), (16, "bias_hh_l1_reverse"));
    }

    #[test]
    fn dropout_acts_between_layers_in_training() {
        let x = sample(&[1, 3, 2], 1);
        for (layers, differs) in [(1, false), (2, true)] {
            let config = RecurrentConfig::new(2, 8).layers(layers).dropout(0.5);
            let layer = Lstm::init(&config, &mut Rng::seed(1)).unwrap();
            let run = || layer.forward(&x, None, None).unwrap().0.to_vec();
            assert_eq!(train_mode(&mut Rng::seed(2), run) != run(), differs);
        }
    }

    #[test]
    fn states_that_do_not_fit_are_errors() {
        let layer = Lstm::init(&RecurrentConfig::new(2, 3), &mut Rng::seed(1)).unwrap();
        let state =
            |shape: &[usize], c: bool| RecurrentState { h: Tensor::zeros(shape), c: c.then(|| Tensor::zeros(shape)) };
        let run = |state| layer.forward(&Tensor::zeros(&[2, 3, 2]), Some(&state), None);
        assert!(run(state(&[1, 2, 3], true)).is_ok());
        assert!(run(state(&[1, 2, 3], false)).is_err());
        assert!(run(state(&[2, 2, 3], true)).is_err());
        assert!(Lstm::init(&RecurrentConfig::new(2, 0), &mut Rng::seed(1)).is_err());
    }
}
