//! Views of heads in activations.

use std::marker::PhantomData;

use super::softmax::BLOCK;

/// Positions of a page of [`Heads::paged`]: the kernels' block of keys.
pub const PAGE: usize = BLOCK;

/// Numbers `[batch, length, heads, head_dim]`, read at strides: the columns of a wider activation, or a cache that
/// keeps its heads apart, or its positions in pages.
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
    /// Which page is the first of each sequence, and one past the last of all.
    first: &'a [usize],
}

/// Distances in elements from one sequence, position, head to the next; the numbers of a head lie together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strides {
    batch: usize,
    pub(super) row: usize,
    head: usize,
}

impl Strides {
    /// `[batch, length, heads · head_dim]`
    fn rows(length: usize, n_heads: usize, head_dim: usize) -> Self {
        Strides { batch: length * n_heads * head_dim, row: n_heads * head_dim, head: head_dim }
    }

    fn check(&self, name: &str, len: usize, shape: [usize; 4]) {
        let [batch, length, n_heads, head_dim] = shape;
        if shape.contains(&0) {
            return;
        }
        let needed = (batch - 1) * self.batch + (length - 1) * self.row + (n_heads - 1) * self.head + head_dim;
        assert!(len >= needed, "{name}: expected {needed} elements for {shape:?}, found {len}");
    }
}

impl<'a> Heads<'a> {
    /// `[batch, length, heads · head_dim]`: what a projection gives.
    pub fn rows(data: &'a [f32], length: usize, n_heads: usize, head_dim: usize) -> Self {
        Heads { data, strides: Strides::rows(length, n_heads, head_dim), pages: None }
    }

    /// Columns from `first` on of `[batch, length, width]`: one part of a joint projection.
    ///
    /// # Panics
    ///
    /// If `first` is past the end of the data.
    pub fn columns(data: &'a [f32], length: usize, width: usize, first: usize, head_dim: usize) -> Self {
        let strides = Strides { batch: length * width, row: width, head: head_dim };
        Heads { data: &data[first..], strides, pages: None }
    }

    /// `[batch, heads, capacity, head_dim]`: a cache, of which the first positions are in use.
    pub fn cache(data: &'a [f32], n_heads: usize, capacity: usize, head_dim: usize) -> Self {
        let strides = Strides { batch: n_heads * capacity * head_dim, row: head_dim, head: capacity * head_dim };
        Heads { data, strides, pages: None }
    }

    /// Any strides, in elements, from sequence to sequence, position to position, head to head.
    pub fn strided(data: &'a [f32], batch: usize, row: usize, head: usize) -> Self {
        Heads { data, strides: Strides { batch, row, head }, pages: None }
    }

    /// Pages of [`PAGE`] positions `[heads · head_dim]` each, the last of a sequence as long as it has to be. Sequence `i` has
    /// the pages `first[i]..first[i + 1]`. For keys and values of [`attention`](super::attention), not of its backward.
    ///
    /// # Panics
    ///
    /// If `first` does not ascend to the number of pages.
    pub fn paged(pages: &'a [&'a [f32]], first: &'a [usize], n_heads: usize, head_dim: usize) -> Self {
        assert!(first.is_sorted() && first.last() == Some(&pages.len()), "attention: pages belong to sequences");
        let strides = Strides { batch: 0, row: n_heads * head_dim, head: head_dim };
        Heads { data: &[], strides, pages: Some(Pages { pages, first }) }
    }

    /// Whether the positions lie in pages.
    pub(super) fn is_paged(&self) -> bool {
        self.pages.is_some()
    }

    /// `lengths`: the positions that are read of each sequence, if not `length`.
    pub(super) fn check(
        &self,
        name: &str,
        batch: usize,
        length: usize,
        lengths: Option<&[usize]>,
        n_heads: usize,
        head_dim: usize,
    ) {
        let Some(Pages { pages, first }) = self.pages else {
            return self.strides.check(name, self.data.len(), [batch, length, n_heads, head_dim]);
        };
        assert_eq!(first.len(), batch + 1, "{name}: pages of {batch} sequences");
        for sequence in 0..batch {
            let length = lengths.map_or(length, |lengths| lengths[sequence]);
            let pages = &pages[first[sequence]..first[sequence + 1]];
            assert!(pages.len() >= length.div_ceil(PAGE), "{name}: pages for {length} positions");
            for (page, from) in pages.iter().zip((0..length).step_by(PAGE)) {
                self.strides.check(name, page.len(), [1, PAGE.min(length - from), n_heads, head_dim]);
            }
        }
    }

    /// Where position `position` of the head is, and the distance to the next; `position` begins a block, through which the
    /// distance holds.
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

    /// Where the head's first position is, and the distance to the next.
    pub(super) fn at(&self, batch: usize, head: usize) -> (*const f32, usize) {
        (self.data.as_ptr().wrapping_add(batch * self.strides.batch + head * self.strides.head), self.strides.row)
    }
}

/// [`Heads`] to be written: no two elements share a place.
#[derive(Debug)]
pub struct HeadsMut<'a> {
    data: *mut f32,
    len: usize,
    strides: Strides,
    /// Positions of a sequence, and columns, that are ours.
    length: usize,
    width: usize,
    _slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: it stands for a part of a `&mut [f32]`, disjoint from any other view of it.
unsafe impl Send for HeadsMut<'_> {}
// SAFETY: as above; the kernels that share it write each element from one task.
unsafe impl Sync for HeadsMut<'_> {}

impl<'a> HeadsMut<'a> {
    /// `[batch, length, heads · head_dim]`
    pub fn rows(data: &'a mut [f32], length: usize, n_heads: usize, head_dim: usize) -> Self {
        let strides = Strides::rows(length, n_heads, head_dim);
        let width = n_heads * head_dim;
        HeadsMut { len: data.len(), data: data.as_mut_ptr(), strides, length, width, _slice: PhantomData }
    }

    /// `[batch, length, Σ widths]` cut into its parts: the gradient of a joint projection of queries, keys and values.
    ///
    /// # Panics
    ///
    /// If a width is not a multiple of `head_dim`.
    pub fn split_columns<const N: usize>(
        data: &'a mut [f32],
        length: usize,
        widths: [usize; N],
        head_dim: usize,
    ) -> [HeadsMut<'a>; N] {
        let width: usize = widths.iter().sum();
        let strides = Strides { batch: length * width, row: width, head: head_dim };
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

    pub(super) fn check(&self, name: &str, batch: usize, length: usize, n_heads: usize, head_dim: usize) {
        self.strides.check(name, self.len, [batch, length, n_heads, head_dim]);
        assert!(
            head_dim == self.strides.head && n_heads * head_dim <= self.width && length <= self.length,
            "{name}: expected {length} rows of {n_heads} heads of {head_dim}, found {} of {} columns, heads of {}",
            self.length,
            self.width,
            self.strides.head
        );
    }

    /// Where the head's first position is, and the distance to the next.
    pub(super) fn at(&self, batch: usize, head: usize) -> (*mut f32, usize) {
        (self.data.wrapping_add(batch * self.strides.batch + head * self.strides.head), self.strides.row)
    }
}
