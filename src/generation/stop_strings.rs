//! Stop strings, found also where they begin in one token and end in another.

/// Holds back text that may be the beginning of a stop string.
#[derive(Clone, Debug)]
pub(crate) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What may be given out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// This text; more may follow.
    Text(String),
    /// This text, then a stop string began.
    Stopped(String),
}

impl StopStrings {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes a piece of text in, and lets out what cannot be part of a stop string any more.
    pub(crate) fn push(&mut self, piece: &str) -> Released {
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return Released::Stopped(std::mem::take(&mut self.held));
        }
        let keep = self.stops.iter().map(|stop| self.begun(stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Released::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The text that is still held when there is no more to come.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The length of the longest end of the held text with which `stop` begins.
    fn begun(&self, stop: &str) -> usize {
        let ends = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        ends.filter(|end| end.len() < stop.len() && stop.starts_with(end)).map(str::len).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = StopStrings::new(stops.iter().map(|s| s.to_string()).collect());
        let mut out = Vec::new();
        for piece in pieces {
            match filter.push(piece) {
                Released::Text(text) => out.push(text),
                Released::Stopped(text) => {
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
}
