//! A look inside a model while it runs: the probabilities of every attention, and the hidden states between layers, by path.
//!
//! The mode is a scope, like [`no_grad`](crate::no_grad): what is computed inside is noted beside, and has the same bits. Where nobody
//! looks, it costs a layer one read of a thread's variable.
//!
//! ```
//! use loquat::models::{CausalLm, Gpt2, Gpt2Config};
//! use loquat::{IdTensor, Rng, See, inspect};
//!
//! let model = Gpt2::init(&Gpt2Config::new(65, 32, 24, 2, 3), &mut Rng::seed(1))?;
//! let ids = IdTensor::sequence(&[1, 2, 3, 4]);
//! let (logits, seen) = inspect(See::Everything, || model.forward(&ids));
//! assert_eq!(logits?.data(), model.forward(&ids)?.data());
//!
//! let paths: Vec<&str> = seen.hidden_states.iter().map(|(path, _)| path.as_str()).collect();
//! assert_eq!(paths, ["transformer.embeddings", "transformer.h.0", "transformer.h.1"]);
//! let (path, probs) = &seen.attention[1]; // [batch, heads, queries, keys]
//! assert_eq!((path.as_str(), probs.shape()), ("transformer.h.1", &[1, 3, 4, 4][..]));
//! # Ok::<(), loquat::Error>(())
//! ```
//!
//! A model takes part by three words: [`at`] names a part, [`hidden`] notes a tensor, [`layer`] does both for a layer's output. Every
//! [`Attention`](crate::ops::Attention) notes its probabilities by itself, under the path at which it is called.

use std::cell::RefCell;
use std::fmt::Display;

use crate::error::Result;
use crate::tensor::Tensor;

/// What [`inspect`] notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum See {
    /// Both.
    Everything,
    /// The embeddings and the output of each layer.
    HiddenStates,
    /// The probabilities of each attention.
    Attention,
}

/// What [`inspect`] saw, in the order in which it was computed; all off the tape.
///
/// A call that a scope holds more than once (one step of decoding after the other) notes each under the same path.
#[derive(Clone, Default)]
pub struct Inspection {
    /// Path and values `[batch, seq_len, width]`: the embeddings, then what each layer puts out, before a norm that follows the
    /// last.
    pub hidden_states: Vec<(String, Tensor)>,
    /// Path and probabilities `[batch, heads, queries, keys]`, before dropout. A row sums to one; that of a query which sees no key is
    /// zero.
    pub attention: Vec<(String, Tensor)>,
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (hidden_states, attention) = (self.hidden_states.len(), self.attention.len());
        write!(f, "Inspection({hidden_states} hidden states, {attention} attention maps)")
    }
}

struct Recorder {
    see: See,
    /// Segments of the path.
    path: Vec<String>,
    seen: Inspection,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Runs `f` and notes what happens inside the models that it calls.
///
/// The mode belongs to the calling thread: what `f` sends to other threads is not seen. An `inspect` inside another sees alone.
pub fn inspect<R>(see: See, f: impl FnOnce() -> R) -> (R, Inspection) {
    /// Puts the outer recorder back, also when `f` panics.
    struct Restore(Option<Recorder>);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDER.set(self.0.take());
        }
    }
    let recorder = Recorder { see, path: Vec::new(), seen: Inspection::default() };
    let _restore = Restore(RECORDER.replace(Some(recorder)));
    let result = f();
    let seen = RECORDER.with_borrow_mut(|recorder| recorder.take().map(|r| r.seen).unwrap_or_default());
    (result, seen)
}

impl See {
    fn wants(self, what: See) -> bool {
        self == See::Everything || self == what
    }
}

pub(crate) fn is_seen(what: See) -> bool {
    RECORDER.with_borrow(|recorder| recorder.as_ref().is_some_and(|r| r.see.wants(what)))
}

fn note(what: See, name: Option<&dyn Display>, x: &Tensor) {
    RECORDER.with_borrow_mut(|recorder| {
        let Some(recorder) = recorder else { return };
        let name = name.map(|name| name.to_string());
        let path: Vec<&str> = recorder.path.iter().chain(&name).map(String::as_str).collect();
        let list = match what {
            See::Attention => &mut recorder.seen.attention,
            _ => &mut recorder.seen.hidden_states,
        };
        list.push((path.join("."), x.detach()));
    });
}

/// Runs `f` as the part `name` (one or more segments of a path) of what runs now.
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

/// Notes hidden states as `name` below the path of what runs now.
pub fn hidden(name: impl Display, x: &Tensor) {
    if is_seen(See::HiddenStates) {
        note(See::HiddenStates, Some(&name), x);
    }
}

/// Runs `f` as layer `i` of `name`, and notes what it puts out.
///
/// # Errors
/// Those of `f`.
pub fn layer(name: impl Display, i: usize, f: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    at(format_args!("{name}.{i}"), || {
        let y = f()?;
        if is_seen(See::HiddenStates) {
            note(See::HiddenStates, None, &y);
        }
        Ok(y)
    })
}

/// Notes the probabilities of an attention if they are wanted; computes them only then.
pub(crate) fn attention(probs: impl FnOnce() -> Result<Tensor>) -> Result<()> {
    if is_seen(See::Attention) {
        note(See::Attention, None, &probs()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_nest_and_an_inner_look_is_its_own() {
        let x = Tensor::zeros(&[1, 2, 3]);
        let run = || {
            at("model", || {
                hidden("embeddings", &x);
                layer("h", 0, || at("attn", || attention(|| Ok(x.clone()))).map(|()| x.clone()))
            })
        };
        let ((_, inner), outer) = inspect(See::Everything, || {
            run().unwrap();
            inspect(See::HiddenStates, || hidden("x", &x))
        });
        let paths = |list: &[(String, Tensor)]| list.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        assert_eq!(paths(&outer.hidden_states), ["model.embeddings", "model.h.0"]);
        assert_eq!(paths(&outer.attention), ["model.h.0.attn"]);
        assert_eq!((paths(&inner.hidden_states), inner.attention.len()), (vec!["x".to_string()], 0));
        let (_, seen) = inspect(See::Attention, run);
        assert_eq!((seen.hidden_states.len(), seen.attention.len()), (0, 1));
        attention(|| panic!("nobody looks")).unwrap();
    }
}
