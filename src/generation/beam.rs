//! Beam search: finds the most probable continuation as a whole by extending several candidates in
//! parallel.

use std::cmp::Ordering;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::generation::config::{EarlyStopping, GenerationConfig};
use crate::generation::logprobs::TokenLogprob;
use crate::generation::processor::LogitsProcessor;
use crate::generation::processor::cutoff::Distribution;
use crate::generation::reader::{Reader, check_context, infer};
use crate::generation::sequence::Sequence;
use crate::generation::stopping::StopReason;
use crate::models::CausalLm;
use crate::random::Rng;

/// A text found by beam search.
///
/// ```text
/// score(text) = Σ log p(token | before) / length^length_penalty
/// ```
///
/// Each step extends every beam by every token and keeps the `num_beams` best unfinished texts;
/// those among the best that end are finished. Tokens, scores and the end of the search agree with
/// `transformers`.
///
/// - *Beam sampling* ([`do_sample`](GenerationConfig::do_sample)): extensions are drawn without
///   replacement from the distribution of the summed scores, after temperature and cut-offs.
/// - *Diverse groups* (Vijayakumar et al., "Diverse Beam Search", 2016): each group searches
///   separately, and the score of a token is reduced by `diversity_penalty` for each time that an
///   earlier group chose it in the same step.
///
/// Beams share the cache of their common prefix: [`KvCache`](crate::nn::KvCache) copies pages only
/// where beams diverge. The search is an iterator that returns a token as soon as all beams agree
/// on it.
#[derive(Clone, Debug)]
pub struct Hypothesis {
    /// Token ids after the prompt, without an end token.
    pub ids: Vec<u32>,
    /// Sum of the tokens' log-probabilities (natural log, after processors, end token included),
    /// divided by their number to the power of `length_penalty`.
    pub score: f32,
    /// Why generation stopped.
    pub stop_reason: StopReason,
    /// Log-probability of each token, if [`GenerationConfig::logprobs`] is set.
    pub logprobs: Vec<TokenLogprob>,
}

/// A running search: an iterator of the tokens that all beams agree on. See [`beam_search`].
pub(crate) struct BeamSearch<P: Deref<Target: CausalLm>> {
    model: P,
    config: Arc<GenerationConfig>,
    /// The prompt, until it has been read.
    reader: Option<Reader<<P::Target as CausalLm>::State>>,
    groups: Vec<Group<<P::Target as CausalLm>::State>>,
    /// The state before the first extension, with the processors.
    first: Sequence,
    rng: Rng,
    /// Maximum number of new tokens.
    limit: usize,
    /// Whether `limit` comes from the model's context length.
    limited_by_context: bool,
    /// The finished texts of all groups, best first; set when the search ends.
    found: Vec<Finished>,
    stopped: Option<StopReason>,
    /// Number of tokens returned.
    given: usize,
}

/// Beams that compete with each other.
struct Group<S> {
    running: Vec<Beam<S>>,
    /// Best first.
    finished: Vec<Finished>,
    done: bool,
}

/// An unfinished text.
struct Beam<S> {
    text: Sequence,
    /// Sum of the log-probabilities.
    score: f32,
    state: S,
    /// Logits of the next token.
    logits: Vec<f32>,
}

#[derive(Clone)]
struct Finished {
    text: Sequence,
    score: f32,
}

/// A beam extended by one token.
#[derive(Clone, Copy)]
struct Candidate {
    beam: usize,
    id: u32,
    score: f32,
}

/// Continues `prompt_ids` by beam search with [`GenerationConfig::num_beams`] beams.
///
/// The search ends when the model's context is full, regardless of
/// [`Overflow`](crate::generation::Overflow).
///
/// # Errors
/// Same as [`generate`](crate::generation::generate()).
///
/// # Examples
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// use loquat::{GenerationConfig, generation::generate};
///
/// let config = GenerationConfig::default().greedy().num_beams(4).num_return_sequences(2);
/// let config = config.max_new_tokens(5);
/// let mut search = generate(&model, &[1, 2, 3], &config)?;
/// for id in search.by_ref() {
///     print!("{} ", id?); // all beams agree on it
/// }
/// let best = search.hypotheses();
/// assert!(best.len() == 2 && best[0].score >= best[1].score);
/// # Ok::<(), loquat::Error>(())
/// ```
pub(crate) fn beam_search<P>(model: P, prompt_ids: &[u32], config: &GenerationConfig) -> Result<BeamSearch<P>>
where
    P: Deref<Target: CausalLm>,
{
    let config = Arc::new(config.clone());
    let first = Sequence::new(prompt_ids, config.clone(), model.vocab_size())?;
    check_context(&*model, prompt_ids.len())?;
    let wanted = config.new_tokens_limit(prompt_ids.len());
    let room = model.max_seq_len().map_or(usize::MAX, |limit| limit - prompt_ids.len() + 1);
    Ok(BeamSearch {
        reader: Some(Reader::new(&*model, prompt_ids.len())),
        model,
        groups: Vec::new(),
        rng: Rng::seed(config.seed),
        limit: wanted.min(room),
        limited_by_context: room < wanted,
        first,
        found: Vec::new(),
        stopped: None,
        given: 0,
        config,
    })
}

impl<P: Deref<Target: CausalLm>> BeamSearch<P> {
    /// Returns the best texts, at most [`GenerationConfig::num_return_sequences`], best first.
    /// Empty until the search has ended.
    pub(crate) fn hypotheses(&self) -> Vec<Hypothesis> {
        let hypothesis = |found: &Finished| Hypothesis {
            ids: found.text.new_ids().to_vec(),
            score: found.score,
            stop_reason: found.text.stop_reason().unwrap_or(StopReason::Cancelled),
            logprobs: found.text.logprobs().to_vec(),
        };
        self.found.iter().take(self.config.num_return_sequences.unwrap_or(1)).map(hypothesis).collect()
    }

    /// Prompt and returned tokens.
    pub(crate) fn ids(&self) -> &[u32] {
        let lead = self.lead().ids();
        &lead[..lead.len() - self.lead().new_ids().len() + self.given]
    }

    /// Returned tokens.
    pub(crate) fn new_ids(&self) -> &[u32] {
        &self.lead().new_ids()[..self.given]
    }

    /// Log-probability of each of [`BeamSearch::new_ids`], if they are kept.
    pub(crate) fn logprobs(&self) -> &[TokenLogprob] {
        let logprobs = self.lead().logprobs();
        &logprobs[..logprobs.len().min(self.given)]
    }

    /// Why the search ended; `None` while it runs or tokens of the best text are still to be
    /// returned.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.stopped.filter(|_| self.given >= self.agreed())
    }

    /// Replaces the prompt's reader, if the prompt has not been read yet.
    pub(crate) fn set_reader(&mut self, reader: Reader<<P::Target as CausalLm>::State>) {
        if let Some(old) = &mut self.reader {
            *old = reader;
        }
    }

    pub(crate) fn push_processor(&mut self, processor: Box<dyn LogitsProcessor>) {
        self.first.push_processor(processor);
    }

    /// Ends the search; no more tokens are returned.
    pub(crate) fn stop(&mut self, reason: StopReason) {
        if self.stopped.is_none() {
            self.end(reason);
        }
        self.stopped = Some(reason);
        if let Some(best) = self.found.first_mut() {
            best.text.truncate(self.given);
        }
    }

    /// A text that starts with all returned tokens.
    fn lead(&self) -> &Sequence {
        let running = self.groups.iter().flat_map(|group| &group.running).map(|beam| &beam.text);
        let finished = self.groups.iter().flat_map(|group| &group.finished).map(|found| &found.text);
        self.found.first().map(|found| &found.text).or(running.chain(finished).next()).unwrap_or(&self.first)
    }

    /// Length of the common prefix of all texts that may still become the best.
    fn agreed(&self) -> usize {
        if self.stopped.is_some() {
            return self.lead().new_ids().len();
        }
        let lead = self.lead().new_ids();
        let running = self.groups.iter().flat_map(|group| &group.running).map(|beam| &beam.text);
        let finished = self.groups.iter().flat_map(|group| &group.finished).map(|found| &found.text);
        let common = |text: &Sequence| lead.iter().zip(text.new_ids()).take_while(|(a, b)| a == b).count();
        running.chain(finished).map(common).min().unwrap_or(0)
    }

    /// Reads the prompt, extends every beam by a token, or ends the search.
    fn step(&mut self) -> Result<()> {
        if self.limit == 0 {
            self.stopped = Some(self.limit_reason());
            return Ok(());
        }
        if let Some(mut reader) = self.reader.take() {
            let Some(logits) = reader.read(&*self.model, &mut self.first)? else {
                self.stopped = self.first.stop_reason();
                return Ok(());
            };
            let beam = |state| Beam { text: self.first.clone(), score: 0.0, state, logits: logits.to_vec() };
            let state = reader.state;
            let group = |_| Group { running: vec![beam(state.clone())], finished: Vec::new(), done: false };
            self.groups = (0..self.config.beam_groups()).map(group).collect();
        }
        if !self.first.is_active() {
            self.end(self.first.stop_reason().unwrap_or(StopReason::Cancelled));
            return Ok(());
        }
        let mut taken: Vec<u32> = Vec::new();
        for i in 0..self.groups.len() {
            if !self.groups[i].done {
                self.continue_group(i, &taken)?;
            }
            taken.extend(self.groups[i].running.iter().filter_map(|beam| beam.text.new_ids().last()));
        }
        if self.groups.iter().all(|group| group.done) {
            self.end(StopReason::EosToken);
            return Ok(());
        }
        self.read_tokens()
    }

    /// Finds the best extensions of a group's beams; `taken` are the tokens that earlier groups
    /// chose.
    fn continue_group(&mut self, i: usize, taken: &[u32]) -> Result<()> {
        let (size, config) = (self.config.beams() / self.groups.len(), self.config.clone());
        let group = &mut self.groups[i];
        // Bounded by the number of candidates: a file may list any number of end tokens.
        let all = group.running.len() * group.running.first().map_or(0, |beam| beam.logits.len());
        let kept = (2.max(1 + config.eos_token_ids.len()) * size).min(all);
        let power = config.length_penalty.unwrap_or(1.0);
        let len = group.running.first().map_or(0, |beam| beam.text.new_ids().len()) + 1;
        let normed = |score: f32, len: usize| score / (len as f32).powf(power);

        let mut rows: Vec<Vec<f32>> = Vec::with_capacity(group.running.len());
        let mut ended: Vec<Finished> = Vec::new();
        for beam in &mut group.running {
            let distribution = Distribution::of(&beam.logits);
            let mut row: Vec<f32> = beam.logits.iter().map(|&x| distribution.log_prob(x)).collect();
            for &id in taken {
                row[id as usize] -= config.diversity_penalty.unwrap_or(0.0);
            }
            if beam.text.process(&mut row)? {
                row.iter_mut().for_each(|x| *x += beam.score);
            } else {
                // The constraint allows no further token: the text is complete.
                row.fill(f32::NEG_INFINITY);
                ended.push(Finished { text: beam.text.clone(), score: normed(beam.score, (len - 1).max(1)) });
            }
            rows.push(row);
        }
        let candidates = if config.samples() { drawn(&rows, kept, &mut self.rng)? } else { likeliest(&rows, kept)? };
        if candidates.is_empty() && ended.is_empty() {
            return Err(Error::argument("beam search", "a next token that no processor forbids", "none"));
        }

        let is_end = |c: &Candidate| config.eos_token_ids.contains(&c.id) || len >= self.limit;
        let full = group.finished.len() >= size && config.stops_early() == EarlyStopping::True;
        for candidate in candidates.iter().take(size).filter(|c| is_end(c) && !full) {
            let beam = &group.running[candidate.beam];
            let mut text = beam.text.clone();
            text.take(candidate.id, &beam.logits)?;
            text.stop(match self.limited_by_context {
                true => StopReason::ContextFull,
                false => StopReason::MaxNewTokens,
            });
            ended.push(Finished { text, score: normed(candidate.score, len) });
        }
        group.finished.extend(ended);
        group.finished.sort_by(|a, b| descending(a.score, b.score));
        group.finished.truncate(size);

        let mut going: Vec<Candidate> = candidates.iter().filter(|c| !is_end(c)).copied().collect();
        going.sort_by(|a, b| descending(a.score, b.score));
        going.truncate(size);
        let best_len = match config.stops_early() {
            EarlyStopping::Never if power > 0.0 => self.limit,
            _ => len,
        };
        let full = group.finished.len() >= size;
        let worst = group.finished.last().map_or(f32::NEG_INFINITY, |found| found.score);
        let improves = going.first().is_some_and(|c| !full || normed(c.score, best_len) > worst);
        group.done = !improves || full && config.stops_early() == EarlyStopping::True;
        if group.done {
            group.running.clear();
            return Ok(());
        }
        // Old beams are dropped before the new ones are extended, so that pages with one owner left
        // are not copied.
        let old = std::mem::take(&mut group.running);
        for candidate in going {
            let beam = &old[candidate.beam];
            let mut text = beam.text.clone();
            text.take(candidate.id, &beam.logits)?;
            let (score, state) = (candidate.score, beam.state.clone());
            group.running.push(Beam { text, score, state, logits: Vec::new() });
        }
        Ok(())
    }

    /// Runs the model on the last token of every beam, in one call.
    fn read_tokens(&mut self) -> Result<()> {
        let mut beams: Vec<_> = self.groups.iter_mut().flat_map(|group| &mut group.running).collect();
        let ids: Vec<u32> = beams.iter().filter_map(|beam| beam.text.new_ids().last().copied()).collect();
        let ids: Vec<&[u32]> = ids.iter().map(std::slice::from_ref).collect();
        let mut states: Vec<_> = beams.iter_mut().map(|beam| &mut beam.state).collect();
        let model = &*self.model;
        let logits = infer(|| model.decode_batch(&ids, &mut states))?;
        for (beam, row) in beams.into_iter().zip(logits.data().chunks_exact(self.model.vocab_size())) {
            beam.logits = row.to_vec();
        }
        Ok(())
    }

    fn limit_reason(&self) -> StopReason {
        if self.limited_by_context { StopReason::ContextFull } else { StopReason::MaxNewTokens }
    }

    /// Sorts the found texts; running texts end with `reason`.
    fn end(&mut self, reason: StopReason) {
        let power = self.config.length_penalty.unwrap_or(1.0);
        for group in &mut self.groups {
            for mut beam in group.running.drain(..) {
                let len = beam.text.new_ids().len().max(1);
                beam.text.stop(reason);
                group.finished.push(Finished { text: beam.text, score: beam.score / (len as f32).powf(power) });
            }
            self.found.append(&mut group.finished);
        }
        self.found.sort_by(|a, b| descending(a.score, b.score));
        // Tokens that were returned remain valid, even if the search was interrupted.
        self.stopped = self.found.first().and_then(|best| best.text.stop_reason()).or(Some(reason));
    }
}

/// Larger scores first; stable for equal ones.
fn descending(a: f32, b: f32) -> Ordering {
    b.total_cmp(&a)
}

/// Returns the `count` candidates with the largest scores, largest first; ties by earlier beam,
/// then smaller id.
fn likeliest(rows: &[Vec<f32>], count: usize) -> Result<Vec<Candidate>> {
    let mut best: Vec<Candidate> = Vec::with_capacity(count + 1);
    for (beam, row) in rows.iter().enumerate() {
        for (id, &score) in row.iter().enumerate() {
            check_score(score)?;
            let full = best.len() == count;
            if score == f32::NEG_INFINITY || full && best.last().is_some_and(|last| score <= last.score) {
                continue;
            }
            let place = best.partition_point(|c| c.score >= score);
            best.insert(place, Candidate { beam, id: id as u32, score });
            best.truncate(count);
        }
    }
    Ok(best)
}

/// Draws `count` candidates without replacement, with probabilities `softmax(scores)`, in the order
/// drawn.
fn drawn(rows: &[Vec<f32>], count: usize, rng: &mut Rng) -> Result<Vec<Candidate>> {
    let scores = || rows.iter().flatten().copied();
    scores().try_for_each(check_score)?;
    let largest = scores().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return Ok(Vec::new());
    }
    let mut weights: Vec<f64> = scores().map(|x| f64::from(x - largest).exp()).collect();
    let mut drawn = Vec::with_capacity(count);
    let vocab_size = rows[0].len();
    while drawn.len() < count {
        let mut left = rng.uniform_f64() * weights.iter().sum::<f64>();
        let mut place = None;
        for (i, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            place = Some(i);
            if left < weight {
                break;
            }
            left -= weight;
        }
        let Some(place) = place else { break };
        weights[place] = 0.0;
        let (beam, id) = (place / vocab_size, place % vocab_size);
        drawn.push(Candidate { beam, id: id as u32, score: rows[beam][id] });
    }
    Ok(drawn)
}

fn check_score(score: f32) -> Result<()> {
    if score.is_nan() || score == f32::INFINITY {
        return Err(Error::NotFinite { what: "logits of the next token".into(), found: f64::from(score) });
    }
    Ok(())
}

impl<P: Deref<Target: CausalLm>> Iterator for BeamSearch<P> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        loop {
            if self.given < self.agreed() {
                self.given += 1;
                return self.new_ids().last().map(|&id| Ok(id));
            }
            if self.stopped.is_some() {
                return None;
            }
            if let Err(error) = self.step() {
                self.end(StopReason::Error);
                self.stop(StopReason::Error);
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests;
