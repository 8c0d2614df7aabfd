//! The file of a GloVe run.
//!
//! Arrays: `words.0` … and `contexts.0` …, the rows of each group with their AdaGrad sums. The
//! counts are not part of the file: they can be saved ([`Cooccurrences::save`]) or counted again,
//! and are identified by a fingerprint.

use std::path::Path;

use super::state::State;
use super::{Cooccurrences, Glove};
use crate::Result;
use crate::embeddings::checkpoint::{Array, Notes, Saved, write};
use crate::embeddings::training::run::Position;
use crate::embeddings::words::hash;
use crate::kernels::adagrad::row_len;

const FORMAT: &str = "loquat glove 1";

/// A fingerprint of the counts: their size, and the words and their frequencies.
fn fingerprint(counts: &Cooccurrences) -> [u64; 4] {
    let vocabulary = counts.vocabulary();
    let words = vocabulary.words.iter().fold(0, |h, word| hash(word.as_bytes(), h));
    let frequencies = hash(bytemuck::cast_slice(&vocabulary.counts), 0);
    [counts.len() as u64, counts.pairs(), words, frequencies]
}

/// Writes the run to the checkpoint file of its settings, if there is one.
pub(super) fn save(glove: &Glove, counts: &Cooccurrences, state: &State) -> Result<()> {
    let Some((path, _)) = &glove.checkpoint else { return Ok(()) };
    let mut arrays = Vec::new();
    for (name, groups) in [("words", &state.words), ("contexts", &state.contexts)] {
        let rows = groups.iter().enumerate();
        arrays.extend(rows.map(|(i, rows)| Array::rows(format!("{name}.{i}"), rows, row_len(glove.dim))));
    }
    let notes = Notes::default().with("format", &FORMAT)?.with("config", glove)?;
    write(path, &arrays, &notes.with("counts", &fingerprint(counts))?.with("position", &state.position)?)
}

/// Reads the settings and the state of a run.
pub(super) fn load(path: &Path, counts: &Cooccurrences) -> Result<(Glove, State)> {
    let saved = Saved::open(path, FORMAT)?;
    let (glove, position): (Glove, Position) = (saved.note("config")?, saved.note("position")?);
    let [words, pairs, ..] = saved.note::<[u64; 4]>("counts")?;
    if saved.note::<[u64; 4]>("counts")? != fingerprint(counts) {
        let found = format!("{} words and {} pairs", counts.len(), counts.pairs());
        return Err(
            saved.wrong(format!("expected the counts of this run ({words} words and {pairs} pairs), found {found}"))
        );
    }
    glove.check()?;
    let mut state = State::start(&glove, counts.len())?;
    for (name, groups) in [("words", &mut state.words), ("contexts", &mut state.contexts)] {
        for (i, rows) in groups.iter_mut().enumerate() {
            *rows = saved.rows(&format!("{name}.{i}"), State::rows(counts.len()), row_len(glove.dim))?;
        }
    }
    Ok((glove, State { position, ..state }))
}
