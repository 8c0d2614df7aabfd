//! [`PackedWeight`]: copies of a weight in the order in which products read it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Precision;
use crate::kernels::gemm::PackedB;
use crate::tensor::{Weight, WeightLayout, has_room};

/// The packed copies of a weight, made when it is read again: packing does not pay off for a weight
/// that is read once.
pub(crate) struct PackedWeight {
    /// The number of products without a packed copy so far.
    products: AtomicU32,
    /// The number of such products before a copy is made.
    patience: u32,
    /// Whether the copies are dropped when the values are no longer in the mapped file.
    while_mapped: bool,
    /// Of the unrounded numbers, and of those rounded to bf16.
    copies: [OnceLock<Option<(WeightLayout, PackedB)>>; 2],
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let copies = self.copies.iter().filter(|copy| matches!(copy.get(), Some(Some(_)))).count();
        write!(f, "PackedWeight({copies} copies)")
    }
}

impl PackedWeight {
    /// The number of products over which the packing of a file's weights is spread, so that no
    /// single token waits for all of it.
    const SPREAD: f64 = 32.0;
    /// The number of rows from which on a product takes about as long as packing.
    const MANY_ROWS: usize = 256;

    /// Copies of any weight, made by its second product.
    pub(crate) fn new() -> Self {
        Self { products: AtomicU32::new(0), patience: 1, while_mapped: false, copies: Default::default() }
    }

    /// Copies that take the place of a mapped file's pages in memory, if the weight is in one. The
    /// weights of a file are packed one after another, in the order of the file.
    pub(crate) fn while_mapped(weight: &Weight) -> Option<Self> {
        let place = weight.place_in_file()?;
        Some(Self { patience: 1 + (Self::SPREAD * place) as u32, while_mapped: true, ..Self::new() })
    }

    /// Returns whether the copies are dropped when the values are no longer in the mapped file.
    pub(crate) fn is_while_mapped(&self) -> bool {
        self.while_mapped
    }

    /// Returns the copy for products of `rows` rows in a precision, or `None` if there is none.
    /// `pack` makes it at the second product or, for a mapped weight, when it is the weight's turn.
    pub(crate) fn get(
        &self,
        weight: &Weight,
        layout: WeightLayout,
        precision: Precision,
        rows: usize,
        pack: impl FnOnce() -> Option<PackedB>,
    ) -> Option<&PackedB> {
        let rounds = precision.rounds() && !matches!(weight, Weight::Bf16(_));
        let copy = &self.copies[usize::from(rounds)];
        if copy.get().is_none() {
            let patience = if rows < Self::MANY_ROWS { self.patience } else { 1 };
            if self.products.fetch_add(1, Ordering::Relaxed) < patience {
                return None;
            }
        }
        let copy = copy.get_or_init(|| {
            let packed = has_room(weight.bytes()).then(pack).flatten()?;
            weight.give_back();
            Some((layout, packed))
        });
        copy.as_ref().filter(|(of, _)| *of == layout).map(|(_, packed)| packed)
    }
}
