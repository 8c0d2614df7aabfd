//! [`PackedWeight`]: copies of a weight in the order in which products read it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Precision;
use crate::kernels::gemm::PackedB;
use crate::tensor::{Weight, WeightLayout, has_room};

/// The packed copies of a weight, made when it is read again: a weight that is read once is not
/// worth packing.
pub(crate) struct PackedWeight {
    /// Products that did without a copy.
    products: AtomicU32,
    /// How many do.
    patience: u32,
    /// Whether this ends when the values leave the mapped file that they came from.
    while_mapped: bool,
    /// Of the numbers as they are, and rounded to bf16.
    copies: [OnceLock<Option<(WeightLayout, PackedB)>>; 2],
}

impl std::fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let copies = self.copies.iter().filter(|copy| matches!(copy.get(), Some(Some(_)))).count();
        write!(f, "PackedWeight({copies} copies)")
    }
}

impl PackedWeight {
    /// Products over which the packing of a file's weights is spread, so that no token of a text
    /// waits for all of it.
    const SPREAD: f64 = 32.0;
    /// Rows of a product whose own time is of the order of the packing's.
    const MANY_ROWS: usize = 256;

    /// Copies that are kept whatever the weight, from the second product on.
    pub(crate) fn new() -> Self {
        Self { products: AtomicU32::new(0), patience: 1, while_mapped: false, copies: Default::default() }
    }

    /// Copies that take the place of a mapped file's pages in memory, if the weight lies in one.
    /// The weights of a file are packed in turn, in its order.
    pub(crate) fn while_mapped(weight: &Weight) -> Option<Self> {
        let place = weight.place_in_file()?;
        Some(Self { patience: 1 + (Self::SPREAD * place) as u32, while_mapped: true, ..Self::new() })
    }

    /// Whether the copies end when the values leave the mapped file that they came from.
    pub(crate) fn is_while_mapped(&self) -> bool {
        self.while_mapped
    }

    /// The copy for products of `rows` rows in a precision, which `pack` makes at the second of them
    /// or, of a mapped weight, when it is its turn; `None` if there is none.
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
