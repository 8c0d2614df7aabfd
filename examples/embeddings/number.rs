//! Formatting numbers.

/// Returns a number with `digits` decimals, or `-` for NaN.
pub(crate) fn number(x: f64, digits: usize) -> String {
    if x.is_nan() { "-".into() } else { format!("{x:.digits$}") }
}
