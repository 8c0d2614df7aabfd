//! The text that word vectors are trained on: files or sentences, read several times.
//!
//! A text is read in *chunks*, in a fixed order and with fixed boundaries, by whichever thread is
//! idle. Chunks are small (64 KiB), so memory does not depend on the length of the text, and
//! everything that a chunk needs (its position in the text, its random numbers) follows from its
//! number.

use std::sync::{Arc, Mutex};

use super::lock;
use crate::embeddings::phrases::{Phrases, feed};
use crate::text::{Corpus, Pieces};
use crate::{Error, Result};

/// A function that splits a line into words and calls its second argument with each.
pub type Split<'a> = dyn Fn(&str, &mut dyn FnMut(&str)) + Sync + Send + 'a;

/// A text that can be read several times: files with one sentence per line, or an iterator of
/// sentences.
///
/// # Examples
/// ```
/// use loquat::embeddings::{TrainingText, Word2Vec};
///
/// // Sentences from any source; each pass must give the same ones.
/// let sentences = || {
///     let lines = ["a cat sat", "a dog ran"].iter().cycle().take(20);
///     lines.map(|line| line.split(' ').map(String::from).collect())
/// };
/// let text = TrainingText::sentences(sentences);
/// let config = Word2Vec::skip_gram().dim(4).negative_samples(2).subsample(0.0);
/// let vectors = config.train(&text)?;
/// assert_eq!(vectors.count("cat"), Some(10));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct TrainingText<'a> {
    source: Source<'a>,
    split: Option<Arc<Split<'a>>>,
    phrases: Vec<Phrases>,
}

type Sentences<'a> = Box<dyn Iterator<Item = Vec<String>> + Send + 'a>;

#[derive(Clone)]
enum Source<'a> {
    Corpus(Corpus),
    Sentences(Arc<dyn Fn() -> Sentences<'a> + Sync + Send + 'a>),
}

impl<'a> TrainingText<'a> {
    /// Returns the text of files, one sentence per line, words separated by white space.
    pub fn corpus(corpus: &Corpus) -> Self {
        TrainingText { source: Source::Corpus(corpus.clone()), split: None, phrases: Vec::new() }
    }

    /// Returns the text of files, one sentence per line, split into words by `split`, which is
    /// called with a line and calls its second argument with each word. It must find the same words
    /// each time.
    pub fn corpus_split_by(corpus: &Corpus, split: impl Fn(&str, &mut dyn FnMut(&str)) + Sync + Send + 'a) -> Self {
        TrainingText { source: Source::Corpus(corpus.clone()), split: Some(Arc::new(split)), phrases: Vec::new() }
    }

    /// Returns the text of an iterator of sentences. `make` is called once per pass and must return
    /// the same sentences each time.
    pub fn sentences<I>(make: impl Fn() -> I + Sync + Send + 'a) -> Self
    where
        I: Iterator<Item = Vec<String>> + Send + 'a,
    {
        TrainingText { source: Source::Sentences(Arc::new(move || Box::new(make()))), split: None, phrases: Vec::new() }
    }

    /// Returns the same text with phrases joined, by each of `rounds` in order.
    pub fn with_phrases(&self, rounds: &[Phrases]) -> Self {
        let phrases = self.phrases.iter().chain(rounds).cloned().collect();
        TrainingText { phrases, ..self.clone() }
    }

    /// Starts a pass with chunks of `chunk` bytes.
    pub(crate) fn pass(&self, chunk: usize) -> Pass<'_, 'a> {
        let reader = match &self.source {
            Source::Corpus(corpus) => Reader::Pieces(corpus.pieces(chunk)),
            Source::Sentences(make) => Reader::Sentences(make()),
        };
        Pass { text: self, chunk, state: Mutex::new(State { reader, next: 0, read: 0, ended: false }) }
    }

    /// The length in bytes, if it is known without reading.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match &self.source {
            Source::Corpus(corpus) => Some(corpus.len()),
            Source::Sentences(_) => None,
        }
    }

    /// The name of the text in error messages.
    pub(crate) fn name(&self) -> std::path::PathBuf {
        match &self.source {
            Source::Corpus(corpus) => corpus.paths().next().map(Into::into).unwrap_or_default(),
            Source::Sentences(_) => "sentences".into(),
        }
    }
}

/// A pass over a text, shared by the threads that read it.
pub(crate) struct Pass<'p, 'a> {
    text: &'p TrainingText<'a>,
    chunk: usize,
    state: Mutex<State<'p>>,
}

enum Reader<'p> {
    Pieces(Pieces),
    Sentences(Sentences<'p>),
}

struct State<'p> {
    reader: Reader<'p>,
    next: u64,
    read: u64,
    ended: bool,
}

/// A chunk: some sentences and their position in the text. A thread reads one after the other into
/// the same memory.
#[derive(Default)]
pub(crate) struct Chunk {
    /// The number of the chunk, counted from 0 in each pass.
    pub(crate) number: u64,
    /// The number of bytes before the chunk.
    pub(crate) start: u64,
    /// The length in bytes.
    pub(crate) len: u64,
    lines: String,
    sentences: Vec<Vec<String>>,
}

impl Pass<'_, '_> {
    /// Reads the next chunk into `chunk`; returns false if there is none. After an error the pass
    /// has ended for all threads.
    pub(crate) fn next(&self, chunk: &mut Chunk) -> Result<bool> {
        let mut state = lock(&self.state);
        if state.ended {
            return Ok(false);
        }
        let len = match &mut state.reader {
            Reader::Pieces(pieces) => match pieces.read(&mut chunk.lines) {
                Ok(_) => chunk.lines.len(),
                Err(e) => {
                    state.ended = true;
                    return Err(e);
                }
            },
            Reader::Sentences(sentences) => {
                chunk.sentences.clear();
                let mut len = 0;
                while len < self.chunk
                    && let Some(sentence) = sentences.next()
                {
                    len += 1 + sentence.iter().map(|word| word.len() + 1).sum::<usize>();
                    chunk.sentences.push(sentence);
                }
                len
            }
        };
        (chunk.number, chunk.start, chunk.len) = (state.next, state.read, len as u64);
        state.next += 1;
        state.read += chunk.len;
        Ok(len > 0)
    }

    /// Calls `each` with each word of a chunk, and with `None` after each sentence.
    pub(crate) fn words(&self, chunk: &Chunk, mut each: impl FnMut(Option<&str>)) {
        if self.text.phrases.is_empty() {
            return self.plain_words(chunk, each);
        }
        let mut pending = vec![String::new(); self.text.phrases.len()];
        self.plain_words(chunk, |word| feed(&self.text.phrases, &mut pending, word, &mut each));
    }

    fn plain_words(&self, chunk: &Chunk, mut each: impl FnMut(Option<&str>)) {
        for line in chunk.lines.lines() {
            // Each file may start with a byte-order mark, which is not part of its first word.
            let line = line.strip_prefix('\u{FEFF}').unwrap_or(line);
            match &self.text.split {
                Some(split) => split(line, &mut |word| each(Some(word))),
                None => line.split_whitespace().for_each(|word| each(Some(word))),
            }
            each(None);
        }
        for sentence in &chunk.sentences {
            sentence.iter().for_each(|word| each(Some(word)));
            each(None);
        }
    }

    /// Ends the pass for all threads.
    pub(crate) fn end(&self) {
        lock(&self.state).ended = true;
    }

    /// The number of bytes that were returned.
    pub(crate) fn read(&self) -> u64 {
        lock(&self.state).read
    }
}

/// Runs `work` on every thread of the pool, and returns all results, or the first error.
pub(crate) fn on_all_threads<R: Send>(work: impl Fn(usize) -> Result<R> + Sync) -> Result<Vec<R>> {
    crate::kernels::parallel::adopt();
    let n = rayon::current_num_threads();
    if n == 1 {
        return Ok(vec![work(0)?]);
    }
    let results: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::new());
    rayon::scope(|scope| {
        for i in 0..n {
            let (results, work) = (&results, &work);
            scope.spawn(move |_| {
                let result = work(i);
                lock(results).push((i, result));
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Returns the error of a text with nothing to train on.
pub(crate) fn empty(text: &TrainingText<'_>, reason: impl Into<String>) -> Error {
    Error::format(text.name(), reason)
}
