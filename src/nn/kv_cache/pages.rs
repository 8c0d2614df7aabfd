//! The positions of one sequence, in pages that sequences share until one of them is written to.

use std::sync::Arc;

pub(super) use crate::ops::attention::paged::PAGE;
use crate::tensor::Buffer;

/// The initial capacity of a page, in positions.
const FIRST_ROOM: usize = 32;

/// Keys and values of one sequence. A clone shares the pages: writing to a shared page copies it.
#[derive(Clone, Default)]
pub(super) struct Pages {
    pages: Vec<Page>,
    len: usize,
}

/// Up to [`PAGE`] positions: all keys, then all values.
#[derive(Clone)]
struct Page {
    numbers: Arc<Buffer>,
    /// The capacity, in positions.
    room: usize,
}

impl Page {
    /// Creates an empty page.
    fn new(room: usize, [key, value]: [usize; 2]) -> Self {
        Self { numbers: Arc::new(Buffer::scratch(room * (key + value))), room }
    }

    /// Returns the memory of an unshared page with a capacity of `len` positions; the first `kept`
    /// are kept.
    fn own(&mut self, len: usize, kept: usize, widths: [usize; 2]) -> &mut [f32] {
        if len > self.room || Arc::get_mut(&mut self.numbers).is_none() {
            let mut page = Self::new(len.next_power_of_two().clamp(FIRST_ROOM, PAGE), widths);
            let (old, new) = (self.numbers.as_slice(), Arc::get_mut(&mut page.numbers).expect("the page is new"));
            let new = new.as_mut_slice();
            new[..kept * widths[0]].copy_from_slice(&old[..kept * widths[0]]);
            let (from, to) = (self.room * widths[0], page.room * widths[0]);
            new[to..][..kept * widths[1]].copy_from_slice(&old[from..][..kept * widths[1]]);
            *self = page;
        }
        Arc::get_mut(&mut self.numbers).expect("made unique above").as_mut_slice()
    }

    fn keys(&self, widths: [usize; 2]) -> &[f32] {
        &self.numbers.as_slice()[..self.room * widths[0]]
    }

    fn values(&self, widths: [usize; 2]) -> &[f32] {
        &self.numbers.as_slice()[self.room * widths[0]..][..self.room * widths[1]]
    }
}

impl Pages {
    /// Returns the number of positions.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends positions: `key: [new, widths[0]]`, `value: [new, widths[1]]`.
    pub(super) fn append(&mut self, key: &[f32], value: &[f32], new: usize, widths: [usize; 2]) {
        let mut done = 0;
        while done < new {
            let (page, at) = (self.len / PAGE, self.len % PAGE);
            let count = (PAGE - at).min(new - done);
            if page == self.pages.len() {
                self.pages.push(Page::new((at + count).next_power_of_two().clamp(FIRST_ROOM, PAGE), widths));
            }
            let page = &mut self.pages[page];
            page.own(at + count, at, widths);
            let room = page.room;
            let numbers = page.own(at + count, at, widths);
            let (keys, values) = numbers.split_at_mut(room * widths[0]);
            keys[at * widths[0]..][..count * widths[0]].copy_from_slice(&key[done * widths[0]..][..count * widths[0]]);
            values[at * widths[1]..][..count * widths[1]]
                .copy_from_slice(&value[done * widths[1]..][..count * widths[1]]);
            self.len += count;
            done += count;
        }
    }

    /// Removes the positions from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.pages.truncate(self.len.div_ceil(PAGE).max(1));
    }

    /// Returns an iterator over the keys of the pages.
    pub(super) fn keys(&self, widths: [usize; 2]) -> impl Iterator<Item = &[f32]> {
        self.used().map(move |page| page.keys(widths))
    }

    /// Returns an iterator over the values of the pages.
    pub(super) fn values(&self, widths: [usize; 2]) -> impl Iterator<Item = &[f32]> {
        self.used().map(move |page| page.values(widths))
    }

    /// Returns an iterator over the pages in use.
    fn used(&self) -> impl Iterator<Item = &Page> {
        self.pages[..self.len.div_ceil(PAGE)].iter()
    }

    /// Writes all positions consecutively to `y: [len, width]`.
    pub(super) fn copy_to<'p>(&self, pages: impl Iterator<Item = &'p [f32]>, width: usize, y: &mut [f32]) {
        for (y, page) in y[..self.len * width].chunks_mut((PAGE * width).max(1)).zip(pages) {
            y.copy_from_slice(&page[..y.len()]);
        }
    }

    /// Returns the number of pages that are shared.
    #[cfg(test)]
    pub(super) fn shared(&self) -> usize {
        self.pages.iter().filter(|page| Arc::strong_count(&page.numbers) > 1).count()
    }
}
