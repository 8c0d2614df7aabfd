//! Resource limits of schemas and grammars.

/// Limits on the cost of compiling an untrusted regular expression, schema or grammar. Exceeding
/// one is an error.
///
/// With the defaults, compilation takes at most a second and 256 MB, independently of the calling
/// thread's stack size.
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
    /// Maximum nesting of schemas, and of rules that refer to rules; each `$ref` counts as a level.
    /// Default: 128.
    pub max_depth: usize,
    /// Maximum number of JSON values in a schema, keys not counted. Default: 20 000.
    pub max_values: usize,
    /// Maximum number of properties of an object, items of a tuple, or options of an `anyOf` or
    /// `oneOf`, including those added by `allOf` and `$ref`. Time grows with its square.
    /// Default: 1000.
    pub max_members: usize,
    /// Maximum number of symbols of the compiled grammar; for a schema, also the number of
    /// subschemas after merging: each option of an `anyOf` or `oneOf` gets a copy of the keys next
    /// to it. Default: 100 000.
    pub max_symbols: usize,
    /// Maximum length of a regular expression or a grammar's text, in bytes. Default: 131 072.
    pub max_bytes: usize,
}

impl Default for GrammarLimits {
    fn default() -> Self {
        Self { max_depth: 128, max_values: 20_000, max_members: 1000, max_symbols: 100_000, max_bytes: 128 << 10 }
    }
}
