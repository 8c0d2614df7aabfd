//! Number formats of tensors.

use crate::kernels::blocks::BlockFormat;

use crate::checkpoint::DType;

/// A tensor type of ggml. For types that cannot be converted to f32, only the name and the size are
/// known.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorType(u8);

/// Id, name, numbers per block, bytes per block.
const TYPES: [(u8, &str, u16, u16); 34] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

impl TensorType {
    /// 32-bit floats.
    pub const F32: Self = Self(0);
    /// IEEE half precision.
    pub const F16: Self = Self(1);
    /// bf16.
    pub const BF16: Self = Self(30);
    /// 8-bit blocks.
    pub const Q8_0: Self = Self(8);

    /// Returns the type with an id of the file format.
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        let id = u8::try_from(id).ok()?;
        TYPES.iter().any(|entry| entry.0 == id).then_some(Self(id))
    }

    /// Returns the id in the file format.
    pub(crate) fn id(self) -> u32 {
        u32::from(self.0)
    }

    fn entry(self) -> (u8, &'static str, u16, u16) {
        *TYPES.iter().find(|entry| entry.0 == self.0).expect("made from an entry")
    }

    /// Returns the name, for example `Q4_K`.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Numbers per block; 1 if there are no blocks.
    pub(crate) fn block_len(self) -> usize {
        usize::from(self.entry().2)
    }

    /// Bytes per block, or per number if there are no blocks.
    pub(crate) fn block_bytes(self) -> usize {
        usize::from(self.entry().3)
    }

    /// Format of the blocks, if they can be dequantised.
    pub(crate) fn block_format(self) -> Option<BlockFormat> {
        BlockFormat::ALL.into_iter().find(|format| format.name() == self.name())
    }

    /// Returns the corresponding [`DType`].
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::Bf16,
            other => match other.block_format() {
                Some(format) => DType::Blocks(format),
                None => DType::Other(other.name().into()),
            },
        }
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_format_has_a_type_of_its_size() {
        for format in BlockFormat::ALL {
            let entry = TYPES.iter().find(|entry| entry.1 == format.name()).unwrap();
            assert_eq!((usize::from(entry.2), usize::from(entry.3)), (format.block_len(), format.block_bytes()));
            let tensor_type = TensorType::from_id(entry.0.into()).unwrap();
            assert_eq!((tensor_type.block_format(), tensor_type.id()), (Some(format), entry.0.into()));
        }
        assert_eq!((TensorType::from_id(4), TensorType::from_id(256)), (None, None));
        assert_eq!(TensorType::from_id(20).unwrap().dtype(), DType::Other("IQ4_NL".into()));
    }
}
