//! Stop strings, which may span several tokens or be spelled like a special token.
//!
//! Special tokens are not part of the returned text, but a stop string may name them. So each stop
//! string is searched for in the returned text, and in the text with special tokens spelled out,
//! where a match contains a special token either whole or not at all.

use std::collections::HashMap;

use crate::text::Tokenizer;

/// Holds back text that may be the start of a stop string.
#[derive(Clone, Debug)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    /// Special tokens that occur in stop strings.
    special: HashMap<u32, String>,
    held: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Char(char),
    /// A special token, which is not returned.
    Special(String),
}

/// Text that can be returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// This text; more may follow.
    Text(String),
    /// This text, up to a stop string.
    Stopped(String),
    /// Same as `Stopped`, where the stop string starts at the special token just pushed: text that
    /// the decoder holds back comes before it.
    StoppedAtToken(String),
}

/// Result of matching a stop string at a position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    No,
    Begun,
    Whole,
}

impl StopStrings {
    pub(crate) fn new(stops: &[String], tokenizer: &Tokenizer) -> Self {
        let ids = if stops.is_empty() { Vec::new() } else { tokenizer.special_ids() };
        let spelled = ids.into_iter().filter_map(|id| Some((id, tokenizer.id_to_token(id)?)));
        Self::with_special(stops, spelled)
    }

    fn with_special(stops: &[String], special: impl Iterator<Item = (u32, String)>) -> Self {
        let named =
            special.filter(|(_, token)| !token.is_empty() && stops.iter().any(|stop| stop.contains(token.as_str())));
        Self { stops: stops.to_vec(), special: named.collect(), held: Vec::new() }
    }

    /// Adds a token and its piece of decoded text; returns the text that can no longer be part of a
    /// stop string.
    pub(crate) fn push(&mut self, id: u32, piece: &str) -> Released {
        if self.stops.is_empty() {
            return Released::Text(piece.to_string());
        }
        self.held.extend(piece.chars().map(Part::Char));
        let token = self.special.get(&id).map(|token| Part::Special(token.clone()));
        let special = token.is_some();
        self.held.extend(token);
        self.release(special)
    }

    /// Adds the last piece of text.
    pub(crate) fn push_last(&mut self, piece: &str) -> Released {
        self.held.extend(piece.chars().map(Part::Char));
        self.release(false)
    }

    fn release(&mut self, special: bool) -> Released {
        let found = |at: usize| self.stops.iter().map(|stop| found(&self.held[at..], stop, true)).max();
        let places: Vec<Found> = (0..self.held.len()).map(|at| found(at).unwrap_or(Found::No)).collect();
        if let Some(at) = places.iter().position(|&found| found == Found::Whole) {
            let last = at + 1 == self.held.len();
            self.held.truncate(at);
            let text = self.finish();
            return if special && last { Released::StoppedAtToken(text) } else { Released::Stopped(text) };
        }
        let keep = places.iter().position(|&found| found == Found::Begun).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        let text = self.finish();
        self.held = rest;
        Released::Text(text)
    }

    /// Returns the remaining text at the end.
    pub(crate) fn finish(&mut self) -> String {
        let text = |part| match part {
            Part::Char(c) => Some(c),
            Part::Special(_) => None,
        };
        self.held.drain(..).filter_map(text).collect()
    }
}

/// Matches `stop` at the start of `parts`; special tokens match by their spelling or are skipped.
fn found(parts: &[Part], stop: &str, first: bool) -> Found {
    let Some((part, rest)) = parts.split_first() else {
        return if stop.is_empty() { Found::Whole } else { Found::Begun };
    };
    match part {
        _ if stop.is_empty() => Found::Whole,
        Part::Char(c) => stop.strip_prefix(*c).map_or(Found::No, |stop| found(rest, stop, false)),
        Part::Special(token) => {
            let written = stop.strip_prefix(token.as_str()).map_or(Found::No, |stop| found(rest, stop, false));
            // A match does not start with a skipped token.
            if first { written } else { written.max(found(rest, stop, false)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces in angle brackets are special tokens.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let special = pieces.iter().zip(0..).filter(|(piece, _)| piece.starts_with('<'));
        let mut filter = StopStrings::with_special(&stops, special.map(|(piece, id)| (id, piece.to_string())));
        let mut out = Vec::new();
        for (piece, id) in pieces.iter().zip(0..) {
            match filter.push(id, if piece.starts_with('<') { "" } else { piece }) {
                Released::Text(text) => out.push(text),
                Released::Stopped(text) | Released::StoppedAtToken(text) => {
                    out.push(text);
                    return (out, true);
                }
            }
        }
        out.push(filter.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_across_pieces_is_found_and_not_given_out() {
        let (out, stopped) = run(&["END"], &["ab", "cE", "N", "Dxx"]);
        assert!(stopped);
        assert_eq!(out, ["ab", "c", "", ""]);
    }

    #[test]
    fn a_false_beginning_is_given_out_later() {
        let (out, stopped) = run(&["END"], &["E", "NE", "x"]);
        assert!(!stopped);
        assert_eq!(out.concat(), "ENEx");
        let (out, _) = run(&["END"], &["EN"]);
        assert_eq!(out, ["", "EN"]);
    }

    #[test]
    fn the_earliest_of_several_wins_and_characters_stay_whole() {
        assert_eq!(run(&["b", "ab"], &["xab"]), (vec!["x".into()], true));
        assert_eq!(run(&["äö"], &["xä", "ü"]).0, ["x", "äü", ""]);
    }

    #[test]
    fn special_tokens_are_found_by_their_spelling() {
        let stopped = |stops: &[&str], pieces: &[&str]| {
            let (out, stopped) = run(stops, pieces);
            (out.concat(), stopped)
        };
        assert_eq!(stopped(&["<s>"], &["a", "<s>", "b"]), ("a".into(), true));
        assert_eq!(stopped(&["\n<s>x"], &["a\n", "<s>", "xy"]), ("a".into(), true));
        assert_eq!(stopped(&["\n<s>x"], &["a\n", "<s>", "y"]), ("a\ny".into(), false));
        assert_eq!(stopped(&["<s><t>"], &["a", "<s>", "<t>"]), ("a".into(), true));
        assert_eq!(stopped(&["s>", "<"], &["a", "<s>", "b"]), ("ab".into(), false), "all of a token or nothing");
        assert_eq!(stopped(&["ab", "<s>z"], &["xa", "<s>", "b"]), ("x".into(), true), "as it is given out");
    }
}
