//! Views of the heads in activations.

use std::marker::PhantomData;

use super::softmax::BLOCK;
use crate::kernels::extent::{extent, size};

/// The number of positions in a page of [`Heads::paged`]: the block size of the kernels.
pub const PAGE: usize = BLOCK;

/// A strided view of numbers `[batch, length, heads, head_dim]`: columns of a wider activation, a
/// cache that stores its heads separately, or one that stores its positions in pages.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    data: &'a [f32],
    strides: Strides,
    pages: Option<Pages<'a>>,
}

/// Keys or values in pages.
#[derive(Clone, Copy, Debug)]
struct Pages<'a> {
    pages: &'a [&'a [f32]],
    /// The index of the first page of each sequence, followed by the number of pages.
    first: &'a [usize],
}

/// The strides of sequences, positions and heads, in elements; the numbers of a head are
/// contiguous.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strides {
    batch: usize,
    pub(super) row: usize,
    head: usize,
}

/// Returns the number of elements of a shape, saturated on overflow, which is past the end of all
/// data.
fn distance<const N: usize>(shape: [usize; N]) -> usize {
    size(shape).unwrap_or(usize::MAX)
}

impl Strides {
    /// `[batch, length, heads · head_dim]`
    fn rows(length: usize, n_heads: usize, head_dim: usize) -> Self {
        let (batch, row) = (distance([length, n_heads, head_dim]), distance([n_heads, head_dim]));
        Strides { batch, row, head: head_dim }
    }

    /// Checks that elements of this shape are within `len`. The returned strides lead only to
    /// these: a stride of an axis of length 1 may have been anything.
    fn checked(self, name: &str, len: usize, shape: [usize; 4]) -> Self {
        let [batch, length, n_heads, head_dim] = shape;
        let needed = extent([(batch, self.batch), (length, self.row), (n_heads, self.head), (head_dim, 1)]);
        assert!(
            needed.is_some_and(|needed| needed <= len),
            "{name}: expected {} elements for {shape:?}, found {len}",
            needed.map_or("more than there can be".into(), |needed| needed.to_string())
        );
        let several = |n: usize| n > 1 && !shape.contains(&0);
        Strides {
            batch: if several(batch) { self.batch } else { 0 },
            row: if several(length) { self.row } else { head_dim },
            head: if several(n_heads) { self.head } else { 0 },
        }
    }
}

impl<'a> Heads<'a> {
    /// Views `[batch, length, heads · head_dim]`: the output of a projection.
    pub fn rows(data: &'a [f32], length: usize, n_heads: usize, head_dim: usize) -> Self {
        Heads { data, strides: Strides::rows(length, n_heads, head_dim), pages: None }
    }

    /// Views the columns from `first` on of `[batch, length, width]`: one part of a joint
    /// projection.
    ///
    /// # Panics
    ///
    /// If `first` is past the end of the data.
    pub fn columns(data: &'a [f32], length: usize, width: usize, first: usize, head_dim: usize) -> Self {
        let strides = Strides { batch: distance([length, width]), row: width, head: head_dim };
        Heads { data: &data[first..], strides, pages: None }
    }

    /// Views `[batch, heads, capacity, head_dim]`: a cache, of which the first positions are in
    /// use.
    pub fn cache(data: &'a [f32], n_heads: usize, capacity: usize, head_dim: usize) -> Self {
        let (batch, head) = (distance([n_heads, capacity, head_dim]), distance([capacity, head_dim]));
        let strides = Strides { batch, row: head_dim, head };
        Heads { data, strides, pages: None }
    }

    /// Views data with any strides, in elements, of sequences, positions and heads.
    pub fn strided(data: &'a [f32], batch: usize, row: usize, head: usize) -> Self {
        Heads { data, strides: Strides { batch, row, head }, pages: None }
    }

    /// Views pages of [`PAGE`] positions `[heads · head_dim]` each; the last page of a sequence may
    /// be shorter. Sequence `i` has the pages `first[i]..first[i + 1]`. For keys and values of
    /// [`attention`](super::attention), not of its backward pass.
    ///
    /// # Panics
    ///
    /// If `first` is not ascending or does not end with the number of pages.
    pub fn paged(pages: &'a [&'a [f32]], first: &'a [usize], n_heads: usize, head_dim: usize) -> Self {
        assert!(first.is_sorted() && first.last() == Some(&pages.len()), "attention: pages belong to sequences");
        let strides = Strides { batch: 0, row: distance([n_heads, head_dim]), head: head_dim };
        Heads { data: &[], strides, pages: Some(Pages { pages, first }) }
    }

    /// Returns whether the positions are in pages.
    pub(super) fn is_paged(&self) -> bool {
        self.pages.is_some()
    }

    /// Returns the view if its data has this shape. `lengths`: the positions that are read of each
    /// sequence, if not `length`.
    pub(super) fn checked(
        self,
        name: &str,
        batch: usize,
        length: usize,
        lengths: Option<&[usize]>,
        n_heads: usize,
        head_dim: usize,
    ) -> Self {
        let Some(Pages { pages, first }) = self.pages else {
            let strides = self.strides.checked(name, self.data.len(), [batch, length, n_heads, head_dim]);
            return Heads { strides, ..self };
        };
        assert_eq!(first.len() - 1, batch, "{name}: pages of {batch} sequences");
        let mut strides = Strides { batch: 0, row: head_dim, head: 0 };
        for sequence in 0..batch {
            let length = lengths.map_or(length, |lengths| lengths[sequence]);
            let pages = &pages[first[sequence]..first[sequence + 1]];
            assert!(pages.len() >= length.div_ceil(PAGE), "{name}: pages for {length} positions");
            for (page, from) in pages.iter().zip((0..length).step_by(PAGE)) {
                let found = self.strides.checked(name, page.len(), [1, PAGE.min(length - from), n_heads, head_dim]);
                strides = Strides { batch: 0, row: strides.row.max(found.row), head: strides.head.max(found.head) };
            }
        }
        Heads { strides, ..self }
    }

    /// Returns the place of position `position` of a head, and the distance to the next; `position`
    /// begins a block, and the distance is valid within the block.
    pub(super) fn block(&self, batch: usize, head: usize, position: usize) -> (*const f32, usize) {
        debug_assert!(position.is_multiple_of(BLOCK), "a block begins here");
        match self.pages {
            Some(Pages { pages, first }) => {
                let page = pages[first[batch] + position / PAGE];
                (page.as_ptr().wrapping_add(head * self.strides.head), self.strides.row)
            }
            None => {
                let (data, row) = self.at(batch, head);
                (data.wrapping_add(position * row), row)
            }
        }
    }

    /// Returns the place of the head's first position, and the distance to the next.
    pub(super) fn at(&self, batch: usize, head: usize) -> (*const f32, usize) {
        (self.data.as_ptr().wrapping_add(batch * self.strides.batch + head * self.strides.head), self.strides.row)
    }
}

/// A mutable [`Heads`]: no two elements overlap.
#[derive(Debug)]
pub struct HeadsMut<'a> {
    data: *mut f32,
    len: usize,
    strides: Strides,
    /// The number of positions of a sequence, and of columns, that belong to this view.
    length: usize,
    width: usize,
    _slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it represents a part of a `&mut [f32]`, disjoint from any other view of it.
unsafe impl Send for HeadsMut<'_> {}
// SAFETY: as above; the kernels that share it write each element from one task.
unsafe impl Sync for HeadsMut<'_> {}

impl<'a> HeadsMut<'a> {
    /// Views `[batch, length, heads · head_dim]`.
    pub fn rows(data: &'a mut [f32], length: usize, n_heads: usize, head_dim: usize) -> Self {
        let strides = Strides::rows(length, n_heads, head_dim);
        let width = distance([n_heads, head_dim]);
        HeadsMut { len: data.len(), data: data.as_mut_ptr(), strides, length, width, _slice: PhantomData }
    }

    /// Splits `[batch, length, Σ widths]` into its parts: the gradient of a joint projection of
    /// queries, keys and values.
    ///
    /// # Panics
    ///
    /// If a width is not a multiple of `head_dim`, or their sum overflows.
    pub fn split_columns<const N: usize>(
        data: &'a mut [f32],
        length: usize,
        widths: [usize; N],
        head_dim: usize,
    ) -> [HeadsMut<'a>; N] {
        let width = widths.iter().try_fold(0usize, |sum, &own| sum.checked_add(own));
        let width = width.expect("widths that fit a machine word in all");
        let strides = Strides { batch: distance([length, width]), row: width, head: head_dim };
        let (len, data) = (data.len(), data.as_mut_ptr());
        let mut first = 0;
        widths.map(|own| {
            assert!(own.is_multiple_of(head_dim.max(1)), "{own} columns are no whole heads of {head_dim}");
            // The view ends where its last row does: what follows belongs to the others.
            let rows = len.checked_div(width).unwrap_or(0);
            let len = if rows == 0 { 0 } else { (rows - 1) * width + own };
            let part =
                HeadsMut { data: data.wrapping_add(first), len, strides, length, width: own, _slice: PhantomData };
            first += own;
            part
        })
    }

    /// Returns the view if it has this shape without overlaps.
    pub(super) fn checked(self, name: &str, batch: usize, length: usize, n_heads: usize, head_dim: usize) -> Self {
        let shape = [batch, length, n_heads, head_dim];
        let strides = self.strides.checked(name, self.len, shape);
        let fits = size([n_heads, head_dim]).is_some_and(|columns| columns <= self.width) && length <= self.length;
        assert!(
            shape.contains(&0) || head_dim == self.strides.head && fits,
            "{name}: expected {length} rows of {n_heads} heads of {head_dim}, found {} of {} columns, heads of {}",
            self.length,
            self.width,
            self.strides.head
        );
        HeadsMut { strides, ..self }
    }

    /// Returns the place of the head's first position, and the distance to the next.
    pub(super) fn at(&self, batch: usize, head: usize) -> (*mut f32, usize) {
        (self.data.wrapping_add(batch * self.strides.batch + head * self.strides.head), self.strides.row)
    }
}
