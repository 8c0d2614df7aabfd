//! Speculation: guesses of the next tokens, which the model reads all at once instead of one after the other.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::generation::config::GenerationConfig;
use crate::generation::logprobs::TokenLogprob;
use crate::generation::processor::LogitsProcessor;
use crate::generation::reader::{Reader, check_context, infer};
use crate::generation::sampler;
use crate::generation::sequence::Sequence;
use crate::generation::stopping::StopReason;
use crate::models::{CausalLm, DecodeState};
use crate::random::Rng;
use crate::tensor::IdTensor;

/// So many tokens are guessed if nobody says otherwise.
pub(crate) const GUESSES: usize = 5;

/// A guessed token, and the logits that it was drawn from if it was drawn.
struct Guess {
    id: u32,
    logits: Option<Vec<f32>>,
}

/// Guesses that what followed the last tokens before will follow them again (Saxena, "Prompt Lookup Decoding", 2023): for texts that
/// repeat what they are given, such as summaries and corrections. Costs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptLookup {
    /// The largest number of last tokens that are looked for.
    max_ngram: usize,
}

impl Default for PromptLookup {
    fn default() -> Self {
        Self { max_ngram: 3 }
    }
}

impl PromptLookup {
    fn draft(&self, text: &Sequence, count: usize) -> Result<Vec<Guess>> {
        let ids = text.ids();
        for n in (1..=self.max_ngram.min(ids.len().saturating_sub(1))).rev() {
            let last = &ids[ids.len() - n..];
            let found = ids[..ids.len() - 1].windows(n).rposition(|window| window == last);
            if let Some(at) = found {
                let follow = &ids[at + n..];
                return Ok(follow.iter().take(count).map(|&id| Guess { id, logits: None }).collect());
            }
        }
        Ok(Vec::new())
    }
}

/// Guesses what a smaller model of the same vocabulary writes.
pub(crate) struct DraftModel<D: Deref<Target: CausalLm>> {
    model: D,
    state: <D::Target as CausalLm>::State,
    /// What the model has read.
    read: Vec<u32>,
    /// Draws the guesses; the text has other numbers.
    rng: Rng,
}

impl<D: Deref<Target: CausalLm>> DraftModel<D> {
    /// A model that has read nothing.
    pub(crate) fn new(model: D, seed: u64) -> Self {
        let state = model.new_state(1);
        Self { model, state, read: Vec::new(), rng: Rng::stream(seed, 1) }
    }
}

impl<D: Deref<Target: CausalLm>> DraftModel<D> {
    fn draft(&mut self, text: &Sequence, count: usize) -> Result<Vec<Guess>> {
        // Guesses that were not taken are forgotten.
        let same = self.read.iter().zip(text.ids()).take_while(|(a, b)| a == b).count().min(text.ids().len() - 1);
        let limit = self.model.max_seq_len().unwrap_or(usize::MAX);
        if text.ids().len() >= limit {
            return Ok(Vec::new());
        }
        if same < self.read.len() {
            if self.state.can_truncate() {
                self.state.truncate(same);
                self.read.truncate(same);
            } else {
                self.state = self.model.new_state(1);
                self.read.clear();
            }
        }
        let mut ahead = text.clone();
        let mut guesses = Vec::with_capacity(count);
        let samples = text.config().samples();
        while guesses.len() < count.min(limit - text.ids().len()) && ahead.goes_on() {
            let unread = ahead.ids()[self.read.len()..].to_vec();
            let (model, ids, state) = (&*self.model, IdTensor::sequence(&unread), &mut self.state);
            let mut logits = infer(|| model.decode(&ids, state))?.to_vec();
            self.read.extend(unread);
            if !ahead.process(&mut logits)? {
                break;
            }
            let id = if samples { sampler::sample(&logits, &mut self.rng)? } else { sampler::greedy(&logits)? };
            let taken = ahead.take(id, &logits)?;
            guesses.push(Guess { id, logits: samples.then_some(logits) });
            if taken.is_none() {
                break;
            }
        }
        Ok(guesses)
    }
}

/// Where the guesses of a text come from.
pub(crate) enum Guesses<D: Deref<Target: CausalLm>> {
    Lookup(PromptLookup),
    Draft(Box<DraftModel<D>>),
}

impl<D: Deref<Target: CausalLm>> Guesses<D> {
    /// At most `count` tokens that may follow.
    fn draft(&mut self, text: &Sequence, count: usize) -> Result<Vec<Guess>> {
        match self {
            Self::Lookup(lookup) => lookup.draft(text, count),
            Self::Draft(model) => model.draft(text, count),
        }
    }
}

/// Tokens that continue a prompt, found with guesses. See [`speculate`] and [`GenerationConfig::prompt_lookup_num_tokens`].
pub struct Speculation<P: Deref<Target: CausalLm>, D: Deref<Target: CausalLm>> {
    model: P,
    guesses: Guesses<D>,
    reader: Reader<<P::Target as CausalLm>::State>,
    text: Sequence,
    /// How many tokens to guess at once.
    count: usize,
    /// What was written and not given out.
    written: VecDeque<u32>,
    guessed: usize,
    taken: usize,
}

/// Continues `prompt_ids` as [`generate`](crate::generation::generate()) does, while `draft` (a smaller model of the same vocabulary)
/// guesses [`GenerationConfig::num_assistant_tokens`] tokens at a time.
///
/// Reading five tokens takes a model hardly longer than one, as both read every weight once. So something cheap guesses how the text
/// goes on, the model reads the guess, and what it would have written itself stays. What is written has the distribution that it
/// has without guesses:
///
/// - greedily, and with guesses from the text itself, the tokens are the very same: each is taken from the model's
///   logits in the same way, with the same random number, and a guess only tells what to read meanwhile;
/// - a token `x` that a smaller model drew with probability `q(x)` is taken with probability `min(1, p(x) / q(x))`, and
///   else one is drawn from `max(0, p - q)`, normalised (Leviathan, Kalman, Matias, "Fast Inference from Transformers via
///   Speculative Decoding", 2023; Chen et al. 2023).
///
/// ```
/// # use loquat::models::{MlpConfig, MlpLm};
/// # let model = MlpLm::init(&MlpConfig::new(13, 6, 8, 3), &mut loquat::Rng::seed(1))?;
/// # let small = MlpLm::init(&MlpConfig::new(13, 2, 4, 1), &mut loquat::Rng::seed(2))?;
/// use loquat::{GenerationConfig, generation::{generate, speculate}};
///
/// let config = GenerationConfig::default().greedy().max_new_tokens(9);
/// let ids: Result<Vec<u32>, _> = speculate(&model, &small, &[1, 2, 3], &config)?.collect();
/// assert_eq!(ids?, generate(&model, &[1, 2, 3], &config)?.collect::<Result<Vec<u32>, _>>()?);
/// # Ok::<(), loquat::Error>(())
/// ```
///
/// # Errors
/// As for [`generate`](crate::generation::generate()); [`Error::Argument`] for a search with beams or another size of vocabulary.
pub fn speculate<P, D>(model: P, draft: D, prompt_ids: &[u32], config: &GenerationConfig) -> Result<Speculation<P, D>>
where
    P: Deref<Target: CausalLm>,
    D: Deref<Target: CausalLm>,
{
    check_draft(&*model, &*draft)?;
    let count = config.num_assistant_tokens.unwrap_or(GUESSES);
    let draft = Guesses::Draft(Box::new(DraftModel::new(draft, config.seed)));
    Speculation::new(model, draft, prompt_ids, config, count)
}

/// Makes sure that one model can guess for another.
pub(crate) fn check_draft<M: CausalLm + ?Sized, D: CausalLm + ?Sized>(model: &M, draft: &D) -> Result<()> {
    if draft.vocab_size() != model.vocab_size() {
        let expected = format!("{} tokens, as the model has", model.vocab_size());
        return Err(Error::argument("draft model's vocabulary", expected, draft.vocab_size()));
    }
    Ok(())
}

impl<P: Deref<Target: CausalLm>, D: Deref<Target: CausalLm>> Speculation<P, D> {
    /// `count` guesses at a time.
    pub(crate) fn new(
        model: P,
        guesses: Guesses<D>,
        prompt_ids: &[u32],
        config: &GenerationConfig,
        count: usize,
    ) -> Result<Self> {
        if config.beams() > 1 {
            return Err(Error::argument("num_beams", "1 with speculation", config.beams()));
        }
        let text = Sequence::new(prompt_ids, Arc::new(config.clone()), model.vocab_size())?;
        check_context(&*model, prompt_ids.len())?;
        let reader = Reader::new(&*model, prompt_ids.len());
        Ok(Self { model, guesses, reader, text, count, written: VecDeque::new(), guessed: 0, taken: 0 })
    }

    /// The prompt and what was given out.
    pub fn ids(&self) -> &[u32] {
        &self.text.ids()[..self.text.ids().len() - self.written.len()]
    }

    /// What was given out.
    pub fn new_ids(&self) -> &[u32] {
        &self.text.new_ids()[..self.text.new_ids().len() - self.written.len()]
    }

    /// The log-probability of each of [`Speculation::new_ids`], if they are kept.
    pub fn logprobs(&self) -> &[TokenLogprob] {
        &self.text.logprobs()[..self.text.logprobs().len().saturating_sub(self.written.len())]
    }

    /// Why the text ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.text.stop_reason().filter(|_| self.written.is_empty())
    }

    /// How many tokens were guessed so far, and how many of them were right.
    pub fn guesses(&self) -> (usize, usize) {
        (self.guessed, self.taken)
    }

    /// Another memory of the prompt, if it was not read yet.
    pub(crate) fn set_reader(&mut self, reader: Reader<<P::Target as CausalLm>::State>) {
        if self.text.new_ids().is_empty() {
            self.reader = reader;
        }
    }

    pub(crate) fn push_processor(&mut self, processor: Box<dyn LogitsProcessor>) {
        self.text.push_processor(processor);
    }

    /// Ends the text for a reason that lies outside the loop, and gives no more out.
    pub(crate) fn stop(&mut self, reason: StopReason) {
        self.text.truncate(self.new_ids().len());
        self.written.clear();
        self.text.end(reason);
    }

    /// Writes a token at least, or ends the text.
    fn step(&mut self) -> Result<()> {
        let room =
            self.model.max_seq_len().map_or(usize::MAX, |limit| limit.saturating_sub(self.reader.state.len() + 1));
        let count = self.count.min(room).min(self.text.left().saturating_sub(1));
        // A prompt is read alone, and so is what a full context begins anew with.
        let guesses = match self.reader.unread == 1 && count > 0 && self.text.goes_on() {
            true => self.guesses.draft(&self.text, count)?,
            false => Vec::new(),
        };
        if guesses.is_empty() {
            if let Some(logits) = self.reader.read(&*self.model, &mut self.text)? {
                let id = self.text.choose(logits.data())?;
                self.reader.unread = usize::from(id.is_some());
                self.written.extend(id);
            }
            return Ok(());
        }
        let before = (!self.reader.state.can_truncate()).then(|| self.reader.state.clone());
        let read = self.reader.state.len();
        let last = *self.text.ids().last().expect("a prompt has a token");
        let ids: Vec<u32> = std::iter::once(last).chain(guesses.iter().map(|guess| guess.id)).collect();
        let (model, input, state) = (&*self.model, IdTensor::sequence(&ids), &mut self.reader.state);
        let logits = infer(|| model.decode_all(&input, state))?;
        self.guessed += guesses.len();
        let rows: Vec<&[f32]> = logits.data().chunks_exact(self.model.vocab_size()).collect();
        let mut new = 0;
        for (i, row) in rows.iter().enumerate() {
            if !self.text.goes_on() {
                break;
            }
            let guess = guesses.get(i);
            let id = match guess {
                Some(Guess { id, logits: Some(q) }) => check_guess(&mut self.text, *id, q, row)?,
                _ => self.text.choose(row)?,
            };
            let Some(id) = id else { break };
            self.written.push_back(id);
            new += 1;
            if guess.is_none_or(|guess| guess.id != id) {
                break;
            }
            self.taken += 1;
        }
        // Of what was read, the old last token and the guesses that were taken stay; the new last token was not read.
        self.reader.unread = 1;
        match before {
            None => drop(self.reader.state.truncate(read + new)),
            Some(before) => {
                self.reader.state = before;
                self.reader.unread = new + 1;
            }
        }
        Ok(())
    }
}

/// Takes a token that was drawn from `softmax(q)`, or another, so that the token has the distribution of the model's logits.
fn check_guess(text: &mut Sequence, id: u32, q: &[f32], row: &[f32]) -> Result<Option<u32>> {
    let mut p = row.to_vec();
    if !text.process(&mut p)? {
        return Ok(None);
    }
    for logits in [&p, q] {
        sampler::greedy(logits)?; // or there are no probabilities
    }
    let (p, q) = (sampler::softmax(&p), sampler::softmax(q));
    let (at, u) = (id as usize, text.rng().uniform_f64());
    if u * q[at] < p[at] {
        return text.take(id, row);
    }
    let rest: Vec<f64> = p.iter().zip(&q).map(|(p, q)| (p - q).max(0.0)).collect();
    let mut left = text.rng().uniform_f64() * rest.iter().sum::<f64>();
    let mut drawn = id;
    for (i, &weight) in rest.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        drawn = i as u32;
        if left < weight {
            break;
        }
        left -= weight;
    }
    text.take(drawn, row)
}

impl<P: Deref<Target: CausalLm>, D: Deref<Target: CausalLm>> Iterator for Speculation<P, D> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Result<u32>> {
        loop {
            if let Some(id) = self.written.pop_front() {
                return Some(Ok(id));
            }
            if self.text.stop_reason().is_some() {
                return None;
            }
            if let Err(error) = self.step() {
                self.text.stop(StopReason::Error);
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::stopping::Cancel;
    use crate::generation::tokens::generate;
    use crate::models::CellType;
    use crate::models::{Gpt2, Gpt2Config, MlpConfig, MlpLm, RnnConfig, RnnLm};

    fn gpt2(seed: u64, n_positions: usize) -> Gpt2 {
        let config = Gpt2Config { initializer_range: 0.3, ..Gpt2Config::new(11, n_positions, 12, 2, 3) };
        Gpt2::init(&config, &mut Rng::seed(seed)).unwrap()
    }

    fn plain(model: &impl CausalLm, prompt: &[u32], config: &GenerationConfig) -> (Vec<u32>, Option<StopReason>) {
        let mut tokens = generate(model, prompt, config).unwrap();
        (tokens.by_ref().map(|id| id.unwrap()).collect(), tokens.stop_reason())
    }

    fn check(model: &impl CausalLm, drafts: &[&Gpt2]) {
        let config = GenerationConfig::default().max_new_tokens(40).logprobs(1).repetition_penalty(0.8);
        for config in [config.clone().greedy(), config.clone().greedy().eos_token_id(4), config.seed(3)] {
            let expected = plain(model, &[1, 2, 1, 2], &config);
            for count in [1, 3, 8] {
                let looked_up = config.clone().prompt_lookup_num_tokens(count);
                assert_eq!(plain(model, &[1, 2, 1, 2], &looked_up), expected, "{count} looked up");
                for draft in drafts.iter().filter(|_| !config.samples()) {
                    let config = config.clone().num_assistant_tokens(count);
                    let mut tokens = speculate(model, *draft, &[1, 2, 1, 2], &config).unwrap();
                    let ids: Vec<u32> = tokens.by_ref().map(|id| id.unwrap()).collect();
                    assert_eq!((ids, tokens.stop_reason()), expected, "{count} drafted");
                    assert_eq!((tokens.logprobs().len(), tokens.ids().len()), (expected.0.len(), expected.0.len() + 4));
                }
            }
        }
    }

    #[test]
    fn guesses_change_no_token() {
        let (model, other, short) = (gpt2(1, 64), gpt2(2, 64), gpt2(3, 7));
        check(&model, &[&model, &other, &short]);
        check(&gpt2(1, 9), &[&other]); // a context that slides
        check(&RnnLm::init(&RnnConfig::new(CellType::Lstm, 11, 6, 1), &mut Rng::seed(1)).unwrap(), &[&other]);
        check(&MlpLm::init(&MlpConfig::new(11, 6, 9, 3), &mut Rng::seed(1)).unwrap(), &[&other]);
    }

    #[test]
    fn a_draft_by_the_model_itself_is_always_right() {
        let model = gpt2(1, 64);
        for config in [GenerationConfig::default().greedy(), GenerationConfig::default().seed(4)] {
            let mut tokens = speculate(&model, &model, &[1], &config.max_new_tokens(30)).unwrap();
            assert_eq!(tokens.by_ref().count(), 30);
            assert_eq!(tokens.guesses().0, tokens.guesses().1);
            assert!(tokens.guesses().0 >= 20);
        }
    }

    #[test]
    fn drawn_tokens_have_the_distribution_of_the_model() {
        let (model, draft) = (gpt2(1, 16), gpt2(2, 16));
        let config = GenerationConfig::default().max_new_tokens(2).top_k(6).num_assistant_tokens(1);
        let runs = 4000;
        // The second token is the first that was guessed.
        let count = |texts: &mut dyn FnMut(u64) -> Vec<u32>| {
            let mut counts = [0.0f64; 121];
            (0..runs).map(texts).for_each(|ids| counts[(ids[0] * 11 + ids[1]) as usize] += 1.0);
            counts
        };
        let longer = config.clone().max_new_tokens(3);
        let ours = count(&mut |seed| {
            let config = longer.clone().seed(seed);
            speculate(&model, &draft, &[1, 2], &config).unwrap().map(|id| id.unwrap()).skip(1).collect()
        });
        let theirs = count(&mut |seed| plain(&model, &[1, 2], &longer.clone().seed(seed + 1_000_000)).0[1..].to_vec());
        // χ² of two samples; pairs that are rare in both are one class.
        let (mut chi_square, mut classes, mut rare) = (0.0, 0, [0.0f64; 2]);
        let mut add = |a: f64, b: f64| {
            chi_square += (a - b).powi(2) / (a + b);
            classes += 1;
        };
        for (&a, &b) in ours.iter().zip(&theirs) {
            if a + b < 20.0 {
                rare = [rare[0] + a, rare[1] + b];
            } else {
                add(a, b);
            }
        }
        if rare[0] + rare[1] > 0.0 {
            add(rare[0], rare[1]);
        }
        // Beyond the mean by 4 standard deviations (√(2 · degrees)): once in 10 000 times or so.
        let degrees = f64::from(classes - 1);
        assert!(classes > 20 && chi_square < degrees + 4.0 * (2.0 * degrees).sqrt(), "{chi_square} of {degrees}");
    }

    #[test]
    fn a_switch_ends_the_text() {
        let (model, cancel) = (gpt2(1, 64), Cancel::new());
        let config = GenerationConfig::default().greedy().max_new_tokens(30).cancel(&cancel);
        let mut tokens = speculate(&model, &model, &[1], &config).unwrap();
        tokens.next().unwrap().unwrap();
        cancel.cancel();
        assert!(tokens.by_ref().count() <= GUESSES + 1);
        assert_eq!(tokens.stop_reason(), Some(StopReason::Cancelled));
        let late = config.deadline(std::time::Instant::now());
        assert_eq!(speculate(&model, &model, &[1], &late).unwrap().count(), 0);
    }

    #[test]
    fn models_that_do_not_fit_are_errors() {
        let other = MlpLm::init(&MlpConfig::new(12, 6, 9, 3), &mut Rng::seed(1)).unwrap();
        let config = GenerationConfig::default();
        assert!(speculate(&gpt2(1, 9), &other, &[1], &config).is_err());
        assert!(speculate(&other, &other, &[1], &config.num_beams(2)).is_err());
    }
}
