//! The flag `--precision` of the programs that run a language model.

use clap::ValueEnum;
use loquat::checkpoint::WeightFormat;
use loquat::ops;

/// The format of the weights. With `bf16`, matrix products are also computed in bf16.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Precision {
    F32,
    Bf16,
    F16,
}

impl Precision {
    /// Returns the weight format. Default: as in the files.
    pub(crate) fn weights(chosen: Option<Self>) -> WeightFormat {
        match chosen {
            None => WeightFormat::Keep,
            Some(Self::F32) => WeightFormat::F32,
            Some(Self::Bf16) => WeightFormat::Bf16,
            Some(Self::F16) => WeightFormat::F16,
        }
    }

    /// Returns the precision of matrix products. Default: f32.
    pub(crate) fn products(chosen: Option<Self>) -> ops::Precision {
        match chosen {
            Some(Self::Bf16) => ops::Precision::Bf16,
            _ => ops::Precision::F32,
        }
    }
}
