//! Random texts for tests.

use crate::Rng;

/// Returns a text of fewer than `limit` parts, each one of `pieces`, any character, or white space.
pub(super) fn random_text(rng: &mut Rng, pieces: &[&str], limit: usize) -> String {
    let white: Vec<char> = (0..=0x3000).filter_map(char::from_u32).filter(|c| c.is_whitespace()).collect();
    let mut text = String::new();
    for _ in 0..rng.below(limit) {
        match rng.below(8) {
            0 => text.push(any_char(rng)),
            1 => text.push(white[rng.below(white.len())]),
            _ => text.push_str(pieces[rng.below(pieces.len())]),
        }
    }
    text
}

/// Returns any character: small ones as often as large ones.
pub(super) fn any_char(rng: &mut Rng) -> char {
    let limit = [0x80, 0x800, 0x1_0000, 0x11_0000][rng.below(4)];
    loop {
        if let Some(c) = char::from_u32(rng.below(limit) as u32) {
            return c;
        }
    }
}
