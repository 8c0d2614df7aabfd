//! Records what a model computes: the probabilities of every attention, and the hidden states
//! between layers, by path.
//!
//! The mode is a scope, like [`no_grad`](crate::no_grad). Results inside it have the same bits.
//! Outside of it, the cost for a layer is one read of a thread-local variable.
//!
//! ```
//! use loquat::models::{CausalLm, Gpt2, Gpt2Config};
//! use loquat::{IdTensor, Rng, Capture, inspect};
//!
//! let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
//! let ids = IdTensor::sequence(&[1, 2, 3, 4]);
//! let (logits, inspection) = inspect(Capture::Everything, || model.forward(&ids));
//! assert_eq!(logits?.data(), model.forward(&ids)?.data());
//!
//! let paths: Vec<&str> = inspection.hidden_states.iter().map(|(path, _)| path.as_str()).collect();
//! assert_eq!(paths, ["transformer.embeddings", "transformer.h.0", "transformer.h.1"]);
//! let (path, probs) = &inspection.attention[1]; // [batch, heads, queries, keys]
//! assert_eq!((path.as_str(), probs.shape()), ("transformer.h.1", &[1, 3, 4, 4][..]));
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! Models use three functions: [`at`] names a part, [`hidden`] records a tensor, [`layer`] does
//! both for the output of a layer. Every [`Attention`](crate::ops::Attention) records its
//! probabilities itself, under the path at which it is called.

use std::cell::RefCell;
use std::fmt::Display;

use crate::error::Result;
use crate::tensor::Tensor;

/// What [`inspect`] records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// Both hidden states and attention probabilities.
    Everything,
    /// The embeddings and the output of each layer.
    HiddenStates,
    /// The probabilities of each attention.
    Attention,
}

/// The tensors that [`inspect`] recorded, in the order in which they were computed, detached from
/// the tape.
///
/// A part that is called more than once inside the scope (in consecutive decoding steps) is
/// recorded each time under the same path.
#[derive(Clone, Default)]
pub struct Inspection {
    /// Path and values `[batch, seq_len, width]`: the embeddings, then the output of each layer,
    /// before a norm that follows the last layer.
    pub hidden_states: Vec<(String, Tensor)>,
    /// Path and probabilities `[batch, heads, queries, keys]`, before dropout. A row sums to one,
    /// or is zero if its query is fully masked.
    pub attention: Vec<(String, Tensor)>,
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (hidden_states, attention) = (self.hidden_states.len(), self.attention.len());
        write!(f, "Inspection({hidden_states} hidden states, {attention} attention maps)")
    }
}

struct Recorder {
    capture: Capture,
    /// The segments of the current path.
    path: Vec<String>,
    inspection: Inspection,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Runs `f` and records what the models that it calls compute.
///
/// The mode belongs to the calling thread: work that `f` sends to other threads is not recorded. A
/// nested `inspect` hides its calls from the outer one.
///
/// ```
/// use loquat::models::{CausalLm, Gpt2, Gpt2Config};
/// use loquat::{Capture, IdTensor, Rng, inspect};
///
/// let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
/// let ids = IdTensor::sequence(&[1, 2]);
/// let (_, inspection) = inspect(Capture::Attention, || model.forward(&ids));
/// assert_eq!(inspection.attention.len(), 2); // one per layer
/// assert!(inspection.hidden_states.is_empty());
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn inspect<R>(capture: Capture, f: impl FnOnce() -> R) -> (R, Inspection) {
    /// Restores the outer recorder, even if `f` panics.
    struct Restore(Option<Recorder>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDER.set(self.0.take());
        }
    }
    let recorder = Recorder { capture, path: Vec::new(), inspection: Inspection::default() };
    let _restore = Restore(RECORDER.replace(Some(recorder)));
    let result = f();
    let inspection = RECORDER.with_borrow_mut(|recorder| recorder.take().map(|r| r.inspection).unwrap_or_default());
    (result, inspection)
}

impl Capture {
    fn includes(self, what: Capture) -> bool {
        self == Capture::Everything || self == what
    }
}

pub(crate) fn is_recording(what: Capture) -> bool {
    RECORDER.with_borrow(|recorder| recorder.as_ref().is_some_and(|r| r.capture.includes(what)))
}

fn record(what: Capture, name: Option<&dyn Display>, x: &Tensor) {
    RECORDER.with_borrow_mut(|recorder| {
        let Some(recorder) = recorder else { return };
        let name = name.map(|name| name.to_string());
        let path: Vec<&str> = recorder.path.iter().chain(&name).map(String::as_str).collect();
        let list = match what {
            Capture::Attention => &mut recorder.inspection.attention,
            _ => &mut recorder.inspection.hidden_states,
        };
        list.push((path.join("."), x.detach()));
    });
}

/// Runs `f` as the part `name` (one or more segments of a path) of the current part.
pub fn at<R>(name: impl Display, f: impl FnOnce() -> R) -> R {
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if self.0 {
                RECORDER.with_borrow_mut(|recorder| recorder.as_mut().and_then(|r| r.path.pop()));
            }
        }
    }
    let entered =
        RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(|r| r.path.push(name.to_string())).is_some());
    let _leave = Leave(entered);
    f()
}

/// Records hidden states as `name` below the current path.
pub fn hidden(name: impl Display, x: &Tensor) {
    if is_recording(Capture::HiddenStates) {
        record(Capture::HiddenStates, Some(&name), x);
    }
}

/// Runs `f` as layer `i` of `name`, and records its output.
///
/// # Errors
/// The errors of `f`.
pub fn layer(name: impl Display, i: usize, f: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    at(format_args!("{name}.{i}"), || {
        let y = f()?;
        if is_recording(Capture::HiddenStates) {
            record(Capture::HiddenStates, None, &y);
        }
        Ok(y)
    })
}

/// Records the probabilities of an attention; they are computed only if they are to be recorded.
pub(crate) fn attention(probs: impl FnOnce() -> Result<Tensor>) -> Result<()> {
    if is_recording(Capture::Attention) {
        record(Capture::Attention, None, &probs()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_nest_and_an_inner_inspect_records_separately() {
        let x = Tensor::zeros(&[1, 2, 3]);
        let run = || {
            at("model", || {
                hidden("embeddings", &x);
                layer("h", 0, || at("attn", || attention(|| Ok(x.clone()))).map(|()| x.clone()))
            })
        };
        let ((_, inner), outer) = inspect(Capture::Everything, || {
            run().unwrap();
            inspect(Capture::HiddenStates, || hidden("x", &x))
        });
        let paths = |list: &[(String, Tensor)]| list.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&outer.hidden_states), ["model.embeddings", "model.h.0"]);
        assert_eq!(paths(&outer.attention), ["model.h.0.attn"]);
        assert_eq!((paths(&inner.hidden_states), inner.attention.len()), (vec!["x".to_string()], 0));
        let (_, seen) = inspect(Capture::Attention, run);
        assert_eq!((seen.hidden_states.len(), seen.attention.len()), (0, 1));
        attention(|| panic!("nothing is recorded")).unwrap();
    }
}
