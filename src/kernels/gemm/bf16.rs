//! Products of bf16, summed in f32: twice the rate of f32 and more where the processor has an instruction for them.
//!
//! Without one the factors are not rounded and the product is that in f32.

use super::f32::{self, Product};

/// How exactly the factors of a product are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 where the processor multiplies that faster; sums are in f32.
    Bf16,
}

impl Precision {
    /// Whether factors are rounded in this precision, on this processor.
    pub fn rounds(self) -> bool {
        self == Precision::Bf16 && has_instruction()
    }
}

#[cfg(target_arch = "x86_64")]
fn has_instruction() -> bool {
    super::micro::avx512_bf16::Avx512Bf16::new().is_some()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_instruction() -> bool {
    false
}

/// Products with one A.
pub(super) fn each(precision: Precision, products: &[Product<'_>]) {
    if precision == Precision::F32 || !rounded::each(products) {
        f32::each(products);
    }
}

#[cfg(target_arch = "x86_64")]
use super::rounded;

/// Where no processor has an instruction for rounded factors.
#[cfg(not(target_arch = "x86_64"))]
mod rounded {
    use super::Product;

    pub(super) fn each(_: &[Product<'_>]) -> bool {
        false
    }
}
