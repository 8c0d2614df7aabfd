//! What a schema or a grammar may cost.

/// Bounds of what a regular expression, schema or grammar from anybody may cost to make ready: what
/// is above one of them is an error.
///
/// With the defaults, nothing takes a second or 256 MB, and the stack of the calling thread does
/// not matter.
///
/// ```
/// use loquat::generation::{GrammarLimits, GrammarCompiler};
///
/// let bytes = (0..=255u8).map(|byte| vec![byte]).collect();
/// let mut limits = GrammarLimits::default();
/// limits.max_members = 4000;
/// let compiler = GrammarCompiler::from_bytes(bytes)?.with_limits(limits);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrammarLimits {
    /// How deep schemas may nest, and rules refer to rules; each `$ref` counts as a level. Default:
    /// 128.
    pub max_depth: usize,
    /// The number of JSON values in a schema, keys not counted. Default: 20 000.
    pub max_values: usize,
    /// The properties of an object, the items of a tuple, the options of an `anyOf` or `oneOf`,
    /// each with what `allOf` and `$ref` add. The time grows with its square. Default: 1000.
    pub max_members: usize,
    /// The symbols of the grammar that comes of it; and of a schema, the schemas in it when all is
    /// merged that holds together: each option of an `anyOf` or `oneOf` gets a copy of what stands
    /// beside it. Default: 100 000.
    pub max_symbols: usize,
    /// The length of a regular expression or of a grammar's text, in bytes. Default: 131 072.
    pub max_bytes: usize,
}

impl Default for GrammarLimits {
    fn default() -> Self {
        Self { max_depth: 128, max_values: 20_000, max_members: 1000, max_symbols: 100_000, max_bytes: 128 << 10 }
    }
}
