//! Views of heads in activations.

use std::marker::PhantomData;

/// Numbers `[batch, length, heads, head_dim]`, read at strides: the columns of a wider activation, or a cache that
/// keeps its heads apart.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    data: &'a [f32],
    strides: Strides,
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
        Heads { data, strides: Strides::rows(length, n_heads, head_dim) }
    }

    /// Columns from `first` on of `[batch, length, width]`: one part of a joint projection.
    ///
    /// # Panics
    ///
    /// If `first` is past the end of the data.
    pub fn columns(data: &'a [f32], length: usize, width: usize, first: usize, head_dim: usize) -> Self {
        let strides = Strides { batch: length * width, row: width, head: head_dim };
        Heads { data: &data[first..], strides }
    }

    /// `[batch, heads, capacity, head_dim]`: a cache, of which the first positions are in use.
    pub fn cache(data: &'a [f32], n_heads: usize, capacity: usize, head_dim: usize) -> Self {
        let strides = Strides { batch: n_heads * capacity * head_dim, row: head_dim, head: capacity * head_dim };
        Heads { data, strides }
    }

    /// Any strides, in elements, from sequence to sequence, position to position, head to head.
    pub fn strided(data: &'a [f32], batch: usize, row: usize, head: usize) -> Self {
        Heads { data, strides: Strides { batch, row, head } }
    }

    pub(super) fn check(&self, name: &str, batch: usize, length: usize, n_heads: usize, head_dim: usize) {
        self.strides.check(name, self.data.len(), [batch, length, n_heads, head_dim]);
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
