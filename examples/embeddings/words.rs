//! The flags that define the words of a text.

use clap::{Args, ValueEnum};
use loquat::embeddings::TrainingText;
use loquat::text::Corpus;

#[derive(Args, Clone, Copy)]
pub(crate) struct Words {
    /// Convert the text to lower case.
    #[arg(long)]
    lowercase: bool,
    /// How lines are split into words.
    #[arg(long, value_enum, default_value = "whitespace")]
    tokenize: Tokenize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tokenize {
    /// Runs of letters and digits, with apostrophes inside; punctuation is dropped.
    Words,
    /// Runs of characters other than white space; punctuation is kept.
    Whitespace,
}

impl Words {
    /// Returns the corpus as training text, one sentence per line.
    pub(crate) fn text(self, corpus: &Corpus) -> TrainingText<'static> {
        if !self.lowercase && self.tokenize == Tokenize::Whitespace {
            return TrainingText::corpus(corpus);
        }
        TrainingText::corpus_split_by(corpus, move |line, word| self.split(line, word))
    }

    /// Calls `word` with each word of a line.
    pub(crate) fn split(self, line: &str, word: &mut dyn FnMut(&str)) {
        let lower;
        let line: &str = match self.lowercase {
            true => {
                lower = line.to_lowercase();
                &lower
            }
            false => line,
        };
        match self.tokenize {
            Tokenize::Whitespace => line.split_whitespace().for_each(word),
            Tokenize::Words => words(line).for_each(word),
        }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    let runs = line.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’'));
    runs.map(|run| run.trim_matches(['\'', '’'])).filter(|run| !run.is_empty())
}
