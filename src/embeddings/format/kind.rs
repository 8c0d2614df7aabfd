//! Detection of the format of a file from its content.
//!
//! word2vec's text and binary formats start with the same line, and nothing else marks which one
//! follows. If the first row parses as a word and numbers, the file is text. Otherwise it is either
//! binary or malformed text; these are distinguished by bytes that do not occur in text and almost
//! always occur in binary numbers.

use super::{fasttext, header, text, without_mark};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FastText,
    Word2VecText,
    Word2VecBinary,
    Glove,
}

/// Returns the format of a file that passed [`check`](super::check).
pub(super) fn of(file: &[u8]) -> Kind {
    if fasttext::looks_like(file) {
        return Kind::FastText;
    }
    let file = without_mark(file);
    let (first, rows) = file.split_at(file.iter().position(|&b| b == b'\n').unwrap_or(file.len()));
    match header(first) {
        None => Kind::Glove,
        Some((_, dim)) if is_text(rows.get(1..).unwrap_or_default(), dim) => Kind::Word2VecText,
        Some(_) => Kind::Word2VecBinary,
    }
}

/// Returns whether the first row is a word and `dim` numbers, as text.
pub(super) fn starts_as_text(rows: &[u8], dim: usize) -> bool {
    let first = rows.split(|&b| b == b'\n').next().unwrap_or_default();
    text::row(first, dim, &mut Vec::new()).is_ok()
}

/// Returns whether the rows are text.
fn is_text(rows: &[u8], dim: usize) -> bool {
    let head = &rows[..rows.len().min(4096)];
    // The last character may be incomplete.
    let utf8 = std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true);
    starts_as_text(rows, dim) || utf8 && head.iter().all(|b| !b.is_ascii_control() || b.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_are_distinguished_by_the_first_row() {
        let binary = |word: &str, numbers: &[f32]| {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            [format!("1 {}\n{word} ", numbers.len()).as_bytes(), &bytes].concat()
        };
        let text = Kind::Word2VecText;
        for (name, file, wanted) in [
            ("few numbers, then a letter of two bytes", "2 3\na 1 2 33\nété 4 5 6\n".into(), text),
            ("a letter of two bytes first", "2 3\nété 4 5 6\na 1 2 33\n".into(), text),
            ("one number", "2 1\na 1\n日本 2\n".into(), text),
            ("a word with a space", "1 2\nnew york 1 2\n".into(), text),
            ("tabs and carriage returns", "1 2\r\na\t1\t2\r\n".into(), text),
            ("a letter of Latin-1", b"2 2\n\xE9t\xE9 1 2\na 3 4\n".to_vec(), text),
            ("no number", "2 2\na 1 x\né 1 2\n".into(), text),
            ("a short row", "2 3\né 1\na 1 2 3\n".into(), text),
            ("a mark", "\u{FEFF}2 2\na 1 2\nb 3 4\n".into(), text),
            ("a mark, no header", "\u{FEFF}a 1 2\nb 3 4\n".into(), Kind::Glove),
            ("no rows", "0 3\n".into(), text),
            ("binary", binary("a", &[1.0, -2.5]), Kind::Word2VecBinary),
            ("binary, a zero", binary("é", &[0.0]), Kind::Word2VecBinary),
            ("binary, line feeds", binary("a", &[f32::from_bits(0x3F0A_0A0A), 0.25]), Kind::Word2VecBinary),
            ("binary, like digits", binary("a", &[f32::from_bits(0x3120_3120), 0.1]), Kind::Word2VecBinary),
        ] {
            assert_eq!(of(&file), wanted, "{name}");
        }
    }
}
