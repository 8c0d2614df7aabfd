//! A weight, or a range of its output features, as a factor of products in any format.

use std::borrow::Cow;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernels::gemm::{Factor, Mat, PackedB};
use crate::ops::precision::Precision;
use crate::tensor::{HalfTensor, Tensor, Weight};

/// How a layer's weight matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightLayout {
    /// `[out_features, in_features]`, as `torch.nn.Linear` has it.
    OutIn,
    /// `[in_features, out_features]`, as GPT-2's checkpoints have it.
    InOut,
}

/// What a layer's weight is multiplied with.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// `x`
    Forward,
    /// `dy`
    Backward,
}

/// The output features of a weight that a product takes.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) layout: WeightLayout,
    pub(super) n_in: usize,
    /// All output features.
    pub(super) stored_out: usize,
    /// The first that is taken, and how many.
    pub(super) start: usize,
    pub(super) n_out: usize,
}

impl Part {
    pub(super) fn whole(weight: &Weight, layout: WeightLayout) -> Result<Self> {
        let (n_in, n_out) = match (weight.shape(), layout) {
            (&[n_out, n_in], WeightLayout::OutIn) | (&[n_in, n_out], WeightLayout::InOut) => (n_in, n_out),
            (other, _) => return Err(Error::shape("linear weight", "two axes", other)),
        };
        Ok(Self { layout, n_in, stored_out: n_out, start: 0, n_out })
    }

    pub(super) fn rows(&self, x: &Tensor) -> usize {
        x.shape()[..x.rank() - 1].iter().product()
    }

    pub(super) fn shape_of_result(&self, x: &Tensor) -> Vec<usize> {
        let mut shape = x.shape().to_vec();
        shape[x.rank() - 1] = self.n_out;
        shape
    }

    /// Where the part's numbers begin, and how many there are, in a weight that is stored by output
    /// features.
    pub(super) fn stored(&self) -> Range<usize> {
        self.start * self.n_in..(self.start + self.n_out) * self.n_in
    }

    /// The part as the right factor `[in, out]`, or `[out, in]` for the way back.
    pub(super) fn matrix<'w, T>(&self, w: &'w [T], side: Side) -> Mat<'w, T> {
        let w = match self.layout {
            WeightLayout::OutIn => Mat::transposed(&w[self.stored()], self.n_in, self.n_out),
            // A weight without inputs has no numbers to begin at.
            WeightLayout::InOut => {
                Mat::new(&w[self.start.min(w.len())..], self.n_in, self.n_out).with_ld(self.stored_out)
            }
        };
        match side {
            Side::Forward => w,
            Side::Backward => w.t(),
        }
    }

    /// The same of a [`readable`] weight in any format.
    pub(super) fn factor<'w>(&self, w: &'w Weight, side: Side) -> Factor<'w> {
        match w {
            Weight::F32(w) => self.matrix(w.data(), side).into(),
            Weight::F16(w) => self.matrix(w.data(), side).into(),
            Weight::Bf16(w) => self.matrix(w.data(), side).into(),
            Weight::Blocks(w) => {
                let (format, numbers) = (w.format(), self.stored());
                let blocks = &w.bytes()[format.bytes_for(numbers.start)..format.bytes_for(numbers.end)];
                Factor::blocks(format, blocks, self.n_in, self.n_out)
            }
        }
    }
}

/// The weight, or its numbers in f32 where a product would read its blocks across.
pub(super) fn readable(w: &Weight, layout: WeightLayout, side: Side) -> Cow<'_, Weight> {
    match (w, layout, side) {
        (Weight::Blocks(_), WeightLayout::OutIn, Side::Forward) => Cow::Borrowed(w),
        (Weight::Blocks(w), _, _) => Cow::Owned(Weight::F32(w.widen())),
        _ => Cow::Borrowed(w),
    }
}

/// A weight in the order in which products read it, rounded to bf16 if the precision says so;
/// `None` for one in blocks.
pub(super) fn pack(weight: &Weight, layout: WeightLayout, precision: Precision) -> Option<PackedB> {
    let whole = Part::whole(weight, layout).ok()?;
    Some(match weight {
        Weight::Blocks(_) => return None,
        Weight::Bf16(w) => PackedB::new(whole.matrix(w.data(), Side::Forward)),
        other if precision.rounds() => {
            let rounded = HalfTensor::<half::bf16>::round(&other.to_tensor());
            PackedB::new(whole.matrix(rounded.data(), Side::Forward))
        }
        Weight::F32(w) => PackedB::new(whole.matrix(w.data(), Side::Forward)),
        Weight::F16(w) => PackedB::new(whole.matrix(w.data(), Side::Forward)),
    })
}
