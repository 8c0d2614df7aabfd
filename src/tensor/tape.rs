//! Reverse-mode automatic differentiation: nodes, the backward pass, the gradients.
//!
//! The tape is independent of the operations. An operation on a tensor that requires gradients
//! attaches a [`Node`] to its result: the nodes of its inputs, and a closure that computes their
//! gradients from the gradient of the result. [`Tensor::backward`] visits the nodes from the newest
//! to the oldest; a node is newer than its inputs, so this is a reverse topological order, the same
//! in every run. Each closure is removed as it is called: activations are freed during the pass,
//! and a graph can be used only once.
//!
//! Gradients are returned as a value, keyed by leaf; no tensor is modified.
//!
//! ```
//! use loquat::Tensor;
//!
//! let x = Tensor::from_vec(vec![1.0, 2.0, 3.0], &[3])?.watch();
//! let y = x.mul(&x)?.sum()?;
//! let gradients = y.backward()?;
//! assert_eq!(gradients.of(&x).map(|dx| dx.to_vec()), Some(vec![2.0, 4.0, 6.0]));
//! # Ok::<(), loquat::Error>(())
//! ```

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Tensor;
use crate::error::{Error, Result};
use crate::kernels::vecmath;

/// Computes the gradients of the inputs from that of the result; `needs[i]` is whether input `i`
/// needs one.
pub(crate) type Backward = Box<dyn FnOnce(Tensor, &[bool]) -> Result<Vec<Option<Tensor>>> + Send>;

/// The result of an operation, or a leaf that requires a gradient.
pub(crate) struct Node {
    id: u64,
    inputs: Vec<Option<Arc<Node>>>,
    /// The operation and its closure, until the backward pass takes it; `None` from the start for a
    /// leaf.
    backward: Mutex<Option<Backward>>,
    op: &'static str,
}

const LEAF: &str = "leaf";

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
}

impl Node {
    fn new(op: &'static str, inputs: Vec<Option<Arc<Node>>>, backward: Option<Backward>) -> Arc<Self> {
        // Ids must only be distinct and increasing; no other memory access depends on this one.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, inputs, backward: Mutex::new(backward), op })
    }

    pub(crate) fn leaf() -> Arc<Self> {
        Self::new(LEAF, Vec::new(), None)
    }

    fn take_backward(&self) -> Option<Backward> {
        self.backward.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A chain of a hundred thousand nodes (a recurrent network over a long text) must not be dropped
/// by recursion, which would overflow the stack.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending: Vec<Arc<Node>> = self.inputs.drain(..).flatten().collect();
        while let Some(node) = pending.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                pending.extend(node.inputs.drain(..).flatten());
            }
        }
    }
}

/// Runs `f` without recording operations: results do not require gradients and keep no activations
/// alive. Applies to the calling thread.
///
/// ```
/// use loquat::{Tensor, no_grad};
///
/// let x = Tensor::scalar(3.0).watch();
/// assert!(x.mul(&x)?.requires_grad());
/// assert!(!no_grad(|| x.mul(&x))?.requires_grad());
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            RECORDING.set(self.0);
        }
    }
    let _restore = Restore(RECORDING.replace(false));
    f()
}

/// Returns whether an operation on `inputs` will be recorded.
pub(crate) fn is_recording(inputs: &[&Tensor]) -> bool {
    RECORDING.get() && inputs.iter().any(|x| x.node.is_some())
}

/// Attaches a node to `output` if one of `inputs` requires a gradient. Only then is `backward`
/// called, which returns the closure. The closure captures detached tensors ([`Tensor::detach`]),
/// never `inputs` themselves.
pub(crate) fn record(
    op: &'static str,
    inputs: &[&Tensor],
    mut output: Tensor,
    backward: impl FnOnce() -> Backward,
) -> Tensor {
    if is_recording(inputs) {
        output.node = Some(Node::new(op, inputs.iter().map(|x| x.node.clone()).collect(), Some(backward())));
    }
    output
}

/// Checks the inputs of an operation without a backward formula.
///
/// # Errors
/// [`Error::NoGradient`] if an input requires a gradient.
pub(crate) fn refuse(op: &'static str, inputs: &[&Tensor]) -> Result<()> {
    if is_recording(inputs) { Err(Error::NoGradient { op }) } else { Ok(()) }
}

/// The gradients of a backward pass, keyed by leaf.
///
/// ```
/// use loquat::Tensor;
///
/// let (x, w) = (Tensor::scalar(3.0), Tensor::scalar(2.0).watch());
/// let mut gradients = x.mul(&w)?.backward()?;
/// gradients.accumulate(x.mul(&w)?.backward()?)?; // a second batch
/// assert_eq!((gradients.len(), gradients.norm()), (1, 6.0));
/// assert!(gradients.of(&x).is_none());
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Default, Clone)]
pub struct Gradients {
    by_leaf: BTreeMap<u64, Tensor>,
}

impl Gradients {
    /// Returns the gradient of a leaf (the tensor of a parameter, or a result of
    /// [`Tensor::watch`]); `None` if the differentiated result does not depend on it.
    pub fn of(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_leaf.get(&leaf.node.as_ref()?.id)
    }

    /// Removes and returns the gradient of a leaf.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.by_leaf.remove(&leaf.node.as_ref()?.id)
    }

    /// Returns the number of leaves that have a gradient.
    pub fn len(&self) -> usize {
        self.by_leaf.len()
    }

    /// Returns whether no leaf has a gradient.
    pub fn is_empty(&self) -> bool {
        self.by_leaf.is_empty()
    }

    /// Adds the gradients of another batch.
    ///
    /// # Errors
    /// [`Error::Shape`] if a leaf's two gradients differ in shape.
    pub fn accumulate(&mut self, other: Gradients) -> Result<()> {
        for (id, gradient) in other.by_leaf {
            accumulate(&mut self.by_leaf, id, gradient)?;
        }
        Ok(())
    }

    /// Returns an iterator over the gradients, in the order in which the leaves were created.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_leaf.values()
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f32) {
        for gradient in self.by_leaf.values_mut() {
            vecmath::scale(factor, gradient.make_mut());
        }
    }

    /// Returns the Euclidean norm of all gradients together.
    pub fn norm(&self) -> f64 {
        self.by_leaf.values().map(|g| vecmath::sum_squares(g.data())).sum::<f64>().sqrt()
    }
}

impl std::fmt::Debug for Gradients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gradients of {} leaves", self.by_leaf.len())
    }
}

fn accumulate(sums: &mut BTreeMap<u64, Tensor>, id: u64, gradient: Tensor) -> Result<()> {
    use std::collections::btree_map::Entry;
    match sums.entry(id) {
        Entry::Vacant(place) => {
            place.insert(gradient);
        }
        Entry::Occupied(mut sum) => {
            let sum = sum.get_mut();
            if sum.shape() != gradient.shape() {
                return Err(Error::shape("gradient", format!("{:?}", sum.shape()), gradient.shape()));
            }
            vecmath::add_assign(sum.make_mut(), gradient.data());
        }
    }
    Ok(())
}

impl Tensor {
    /// Computes the gradients of this scalar with respect to all leaves that it depends on.
    ///
    /// This consumes the graph: activations are freed during the pass, and a second pass over the
    /// graph is an error.
    ///
    /// # Errors
    /// [`Error::Backward`] if this is not a scalar, depends on no leaf, or its graph was already
    /// used.
    pub fn backward(&self) -> Result<Gradients> {
        if self.len() != 1 {
            return Err(Error::Backward {
                expected: "a scalar (or `backward_from` with a gradient)",
                found: format!("shape {:?}", self.shape()),
            });
        }
        self.backward_from(Tensor::full(self.shape(), 1.0))
    }

    /// Same as [`Tensor::backward`] for a tensor of any shape, starting from the gradient `dy` of
    /// this tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if `dy` has another shape; also the errors of [`Tensor::backward`].
    pub fn backward_from(&self, dy: Tensor) -> Result<Gradients> {
        if dy.shape() != self.shape() {
            return Err(Error::shape("backward", format!("{:?}", self.shape()), dy.shape()));
        }
        let Some(root) = self.node.clone() else {
            return Err(Error::Backward {
                expected: "a result that depends on a leaf that requires gradients",
                found: "a result that depends on none".into(),
            });
        };
        let mut leaves = BTreeMap::new();
        let mut pending = BTreeMap::from([(root.id, root)]);
        let mut gradients = BTreeMap::from([(self.node_id(), dy.detach())]);
        no_grad(|| {
            while let Some((id, node)) = pending.pop_last() {
                let dy = gradients.remove(&id).expect("a pending node has a gradient");
                if node.op == LEAF {
                    leaves.insert(id, dy);
                    continue;
                }
                let backward = node.take_backward().ok_or_else(|| Error::Backward {
                    expected: "a graph that was not used before",
                    found: format!("one already used, at `{}`", node.op),
                })?;
                let needs: Vec<bool> = node.inputs.iter().map(Option::is_some).collect();
                let dinputs = backward(dy, &needs)?;
                assert_eq!(dinputs.len(), needs.len(), "`{}` returns a gradient per input", node.op);
                for (input, dx) in node.inputs.iter().zip(dinputs) {
                    let Some(input) = input else { continue };
                    let dx = dx.ok_or(Error::NoGradient { op: node.op })?;
                    accumulate(&mut gradients, input.id, dx)?;
                    pending.entry(input.id).or_insert_with(|| input.clone());
                }
            }
            Ok::<(), Error>(())
        })?;
        Ok(Gradients { by_leaf: leaves })
    }

    fn node_id(&self) -> u64 {
        self.node.as_ref().map_or(0, |node| node.id)
    }
}
