//! Reverse-mode differentiation: nodes, the walk, the gradients.
//!
//! The tape knows no operation. An operation that takes a tensor which needs gradients hangs a [`Node`] on its result:
//! the nodes of its inputs and a closure from the gradient of the result to those of the inputs.
//! [`Tensor::backward`] walks the nodes from the youngest to the oldest; a node is younger than its inputs, so that is a reverse
//! topological order, and always the same one. Each closure is taken out as it is called: activations are freed on the way,
//! and a graph is walked once.
//!
//! Gradients are returned, by the identity of the leaf; nothing is changed behind the caller's back.
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

/// From the gradient of a result to those of its inputs; `needs[i]` tells whether input `i` wants one.
pub(crate) type Backward = Box<dyn FnOnce(Tensor, &[bool]) -> Result<Vec<Option<Tensor>>> + Send>;

/// A result of an operation, or a leaf whose gradient is wanted.
pub(crate) struct Node {
    id: u64,
    inputs: Vec<Option<Arc<Node>>>,
    /// The operation and its closure, until the walk has come by; `None` from the start for a leaf.
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
        // Only distinct and growing numbers are needed; no other memory hangs on the order.
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

/// A chain of a hundred thousand nodes (a recurrent network over a long text) must not be dropped by recursion.
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

/// Runs `f` without recording operations: its results need no gradients and keep no activations alive.
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

/// Whether an operation on `inputs` will be recorded.
pub(crate) fn is_recording(inputs: &[&Tensor]) -> bool {
    RECORDING.get() && inputs.iter().any(|x| x.node.is_some())
}

/// Hangs a node on `output` if one of `inputs` needs a gradient. `backward` makes the closure; it is called only then. The
/// closure captures detached tensors ([`Tensor::detach`]), never `inputs` themselves.
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

/// For an operation without a backward formula.
///
/// # Errors
/// [`Error::NoGradient`] if an input needs a gradient.
pub(crate) fn refuse(op: &'static str, inputs: &[&Tensor]) -> Result<()> {
    if is_recording(inputs) { Err(Error::NoGradient { op }) } else { Ok(()) }
}

/// Gradients by the leaf that they belong to.
#[derive(Default, Clone)]
pub struct Gradients {
    by_leaf: BTreeMap<u64, Tensor>,
}

impl Gradients {
    /// The gradient of a leaf: of a parameter's tensor, or of one made by [`Tensor::watch`]; `None` if the differentiated
    /// result did not depend on it.
    pub fn of(&self, leaf: &Tensor) -> Option<&Tensor> {
        self.by_leaf.get(&leaf.node.as_ref()?.id)
    }

    /// Takes a leaf's gradient out.
    pub fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.by_leaf.remove(&leaf.node.as_ref()?.id)
    }

    /// How many leaves have one.
    pub fn len(&self) -> usize {
        self.by_leaf.len()
    }

    /// Whether no leaf has one.
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

    /// Every gradient, in the order in which the leaves were made.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.by_leaf.values()
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f32) {
        for gradient in self.by_leaf.values_mut() {
            vecmath::scale(factor, gradient.make_mut());
        }
    }

    /// The Euclidean norm over all gradients together.
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
    /// The gradients of this scalar with respect to every leaf that it depends on.
    ///
    /// The graph is used up: activations are freed on the way, and a second walk over it is an error.
    ///
    /// # Errors
    /// [`Error::Backward`] if this is not a scalar, depends on no leaf, or was walked before.
    pub fn backward(&self) -> Result<Gradients> {
        if self.len() != 1 {
            return Err(Error::Backward {
                expected: "a scalar (or `backward_from` with a gradient)",
                found: format!("shape {:?}", self.shape()),
            });
        }
        self.backward_from(Tensor::full(self.shape(), 1.0))
    }

    /// As [`Tensor::backward`] for a tensor of any shape, from the gradient `dy` of this tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if `dy` has another shape; [`Error::Backward`] as above.
    pub fn backward_from(&self, dy: Tensor) -> Result<Gradients> {
        if dy.shape() != self.shape() {
            return Err(Error::shape("backward", format!("{:?}", self.shape()), dy.shape()));
        }
        let Some(root) = self.node.clone() else {
            return Err(Error::Backward {
                expected: "a result that depends on a leaf which needs gradients",
                found: "one that depends on none".into(),
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
                    expected: "a graph that was not walked before",
                    found: format!("a used one at `{}`", node.op),
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
