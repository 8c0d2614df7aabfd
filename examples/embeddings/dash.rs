//! Numbers for people.

/// A number with so many digits behind the point; a dash where there is none.
pub(crate) fn number(x: f64, digits: usize) -> String {
    if x.is_nan() { "-".into() } else { format!("{x:.digits$}") }
}
