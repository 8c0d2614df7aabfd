//! Windows of a long sequence of tokens: `context` tokens each, with the next tokens as labels.
//!
//! [`RandomWindows`] draws windows as nanoGPT does: each step draws new ones, and step n of a seed
//! is always the same. [`SequentialWindows`] visits every token once per epoch, in order or
//! shuffled.

use super::order::Order;
use super::{Batch, BatchSource, DataState, IGNORE_INDEX, TokenStream};
use crate::random::Rng;
use crate::tensor::IdTensor;
use crate::{Error, Result};

/// An endless source of windows at random positions.
///
/// # Examples
/// ```
/// use loquat::training::data::{BatchSource, RandomWindows, TokenStream};
///
/// let stream = TokenStream::from_ids((0..1000).collect());
/// let mut windows = RandomWindows::new(stream, 8, 4, 42)?;
/// let batch = windows.next_batch()?.unwrap();
/// assert_eq!(batch.input_ids.shape(), [4, 8]);
/// assert_eq!(batch.labels.unwrap().data()[0], batch.input_ids.data()[0] + 1);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RandomWindows {
    stream: TokenStream,
    context: usize,
    batch_size: usize,
    seed: u64,
    step: u64,
}

impl RandomWindows {
    /// Returns a source of batches of `batch_size` windows of `context` tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is 0, or if the stream has fewer than `context + 1` tokens.
    pub fn new(stream: TokenStream, context: usize, batch_size: usize, seed: u64) -> Result<Self> {
        check(context, batch_size)?;
        if stream.len() <= context {
            let expected = format!("less than the number of tokens of the text, {}", stream.len());
            return Err(Error::argument("context", expected, context));
        }
        Ok(RandomWindows { stream, context, batch_size, seed, step: 0 })
    }

    /// Returns the batch of a step, a function of seed and step only.
    ///
    /// # Errors
    /// None after the checks of [`new`](RandomWindows::new).
    pub(crate) fn batch(&self, step: u64) -> Result<Batch> {
        let mut rng = Rng::stream(self.seed, step);
        let starts: Vec<usize> = (0..self.batch_size).map(|_| rng.below(self.stream.len() - self.context)).collect();
        batch(&self.stream, &starts, self.context)
    }
}

impl BatchSource for RandomWindows {
    type Batch = Batch;

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let batch = self.batch(self.step)?;
        self.step += 1;
        Ok(Some(batch))
    }

    fn batches_per_epoch(&self) -> Option<usize> {
        None
    }

    fn state(&self) -> DataState {
        let sizes = [self.stream.len(), self.context, self.batch_size].map(|n| n as u64);
        DataState { epoch: 0, position: self.step, settings: [sizes.to_vec(), vec![self.seed]].concat() }
    }

    fn restore(&mut self, state: &DataState) -> Result<()> {
        state.check(&self.state().settings)?;
        self.step = state.position;
        Ok(())
    }
}

/// A source of consecutive windows that visits each token once per epoch, for validation or for
/// training by epochs.
///
/// The last window of the stream is padded; its padding counts for no loss.
#[derive(Clone)]
pub struct SequentialWindows {
    stream: TokenStream,
    context: usize,
    order: Order,
    epoch: u64,
    position: usize,
    batches: Option<Vec<Vec<usize>>>,
}

impl std::fmt::Debug for SequentialWindows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { stream, context, order, epoch, position, .. } = self;
        write!(f, "SequentialWindows({stream:?}, context={context}, batch_size={}, ", order.batch_size)?;
        write!(f, "epoch={epoch}, position={position})")
    }
}

impl SequentialWindows {
    /// Returns a source of batches of `batch_size` windows of `context` tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] if a size is 0, or if the stream has fewer than 2 tokens.
    pub fn new(stream: TokenStream, context: usize, batch_size: usize) -> Result<Self> {
        check(context, batch_size)?;
        if stream.len() < 2 {
            return Err(Error::argument("text", "at least 2 tokens", stream.len()));
        }
        let order = Order { batch_size, shuffle: None, drop_last: false, bucket_batches: 0 };
        Ok(SequentialWindows { stream, context, order, epoch: 0, position: 0, batches: None })
    }

    /// Shuffles the windows of each epoch, in an order determined by the seed and the epoch.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.order.shuffle = Some(seed);
        self
    }

    /// The number of windows of an epoch.
    pub(crate) fn n_windows(&self) -> usize {
        (self.stream.len() - 1).div_ceil(self.context)
    }
}

impl BatchSource for SequentialWindows {
    type Batch = Batch;

    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let n = self.n_windows();
        let indices = match self.order.shuffle {
            Some(_) => {
                let batches = self.batches.get_or_insert_with(|| self.order.batches(n, self.epoch, |_| 0));
                batches.get(self.position).cloned().unwrap_or_default()
            }
            // In order: no list of indices is needed, regardless of the length of the stream.
            None => {
                let first = self.position * self.order.batch_size;
                (first..n.min(first + self.order.batch_size)).collect()
            }
        };
        if indices.is_empty() {
            self.epoch += 1;
            self.position = 0;
            self.batches = None;
            return Ok(None);
        }
        self.position += 1;
        let starts: Vec<usize> = indices.into_iter().map(|index| index * self.context).collect();
        batch(&self.stream, &starts, self.context).map(Some)
    }

    fn batches_per_epoch(&self) -> Option<usize> {
        Some(self.order.n_batches(self.n_windows()))
    }

    fn state(&self) -> DataState {
        let sizes = [self.stream.len(), self.context, self.order.batch_size].map(|n| n as u64);
        let settings = [sizes.to_vec(), self.order.shuffle.into_iter().collect()].concat();
        DataState { epoch: self.epoch, position: self.position as u64, settings }
    }

    fn restore(&mut self, state: &DataState) -> Result<()> {
        state.check(&self.state().settings)?;
        let most = self.order.n_batches(self.n_windows());
        match usize::try_from(state.position) {
            Ok(position) if position <= most => self.position = position,
            _ => return Err(Error::argument("position in the data", format!("at most {most}"), state.position)),
        }
        self.epoch = state.epoch;
        self.batches = None;
        Ok(())
    }
}

fn check(context: usize, batch_size: usize) -> Result<()> {
    /// Larger batches are assumed to be a mistake; the memory would be allocated.
    const MOST: usize = 1 << 28;
    for (name, value) in [("context", context), ("batch_size", batch_size)] {
        if value == 0 || value > MOST {
            return Err(Error::argument(name, format!("a number in [1, {MOST}]"), value));
        }
    }
    match context.checked_mul(batch_size) {
        Some(n) if n <= MOST => Ok(()),
        _ => Err(Error::argument("context × batch_size", format!("at most {MOST} tokens"), batch_size)),
    }
}

/// Returns the windows that begin at `starts`. Positions beyond the end of the stream are padded
/// with 0 and ignored by the loss.
fn batch(stream: &TokenStream, starts: &[usize], context: usize) -> Result<Batch> {
    let mut input_ids = Vec::with_capacity(starts.len() * context);
    let mut labels = Vec::with_capacity(starts.len() * context);
    let mut mask = Vec::new();
    for (row, &start) in starts.iter().enumerate() {
        let n = context.min(stream.len() - 1 - start);
        let end = (row + 1) * context;
        stream.append(start, n, &mut input_ids)?;
        stream.append(start + 1, n, &mut labels)?;
        input_ids.resize(end, 0);
        labels.resize(end, IGNORE_INDEX);
        if n < context {
            mask.resize(end - context + n, 1);
            mask.resize(end, 0);
        }
    }
    let shape = [starts.len(), context];
    let attention_mask = if mask.is_empty() {
        None
    } else {
        mask.resize(input_ids.len(), 1);
        Some(IdTensor::new(mask, &shape)?)
    };
    Ok(Batch {
        input_ids: IdTensor::new(input_ids, &shape)?,
        attention_mask,
        token_type_ids: None,
        labels: Some(IdTensor::new(labels, &shape)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(n: u32) -> TokenStream {
        TokenStream::from_ids((0..n).collect())
    }

    #[test]
    fn labels_are_the_next_tokens_and_all_places_occur() {
        let mut windows = RandomWindows::new(stream(12), 3, 5, 7).unwrap();
        let mut seen = [false; 12];
        for _ in 0..100 {
            let batch = windows.next_batch().unwrap().unwrap();
            let labels = batch.labels.unwrap();
            for (input, label) in batch.input_ids.data().iter().zip(labels.data()) {
                assert_eq!(input + 1, *label);
                seen[*input as usize] = true;
            }
        }
        assert_eq!(seen, [true, true, true, true, true, true, true, true, true, true, true, false]);
        assert!(windows.batch(3).unwrap() != windows.batch(4).unwrap());
    }

    #[test]
    fn steps_resume() {
        let mut whole = RandomWindows::new(stream(50), 4, 2, 1).unwrap();
        let all: Vec<_> = (0..10).map(|_| whole.next_batch().unwrap()).collect();
        let mut first = RandomWindows::new(stream(50), 4, 2, 1).unwrap();
        (0..6).for_each(|_| drop(first.next_batch().unwrap()));
        let mut second = RandomWindows::new(stream(50), 4, 2, 1).unwrap();
        second.restore(&first.state()).unwrap();
        assert_eq!((6..10).map(|_| second.next_batch().unwrap()).collect::<Vec<_>>(), all[6..]);
        assert!(RandomWindows::new(stream(50), 4, 2, 2).unwrap().restore(&first.state()).is_err());
    }

    #[test]
    fn sequential_windows_hold_every_label_once() {
        for n in [2u32, 5, 9, 10, 11, 40] {
            for shuffle in [None, Some(3)] {
                let mut windows = SequentialWindows::new(stream(n), 4, 2).unwrap();
                if let Some(seed) = shuffle {
                    windows = windows.shuffle(seed);
                }
                let (mut labels, mut batches) = (Vec::new(), 0);
                while let Some(batch) = windows.next_batch().unwrap() {
                    batches += 1;
                    assert_eq!(batch.n_tokens(), batch.n_labels());
                    let new = batch.labels.as_ref().unwrap().data().iter().copied();
                    labels.extend(new.filter(|&label| label != IGNORE_INDEX));
                    // Resuming here gives the same next batch.
                    let mut again = windows.clone();
                    again.restore(&windows.state()).unwrap();
                    assert_eq!(again.next_batch().unwrap(), windows.clone().next_batch().unwrap());
                }
                assert_eq!(Some(batches), windows.batches_per_epoch());
                if shuffle.is_some() {
                    labels.sort();
                }
                assert_eq!(labels, (1..n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors() {
        let error = RandomWindows::new(stream(8), 8, 1, 0).unwrap_err().to_string();
        assert_eq!(error, "context: expected less than the number of tokens of the text, 8, found 8");
        assert!(RandomWindows::new(stream(9), 8, 1, 0).is_ok());
        for (context, batch) in [(0, 1), (1, 0), (usize::MAX, 2), (1 << 20, 1 << 20)] {
            assert!(RandomWindows::new(stream(8), context, batch, 0).is_err());
            assert!(SequentialWindows::new(stream(8), context, batch).is_err());
        }
        assert!(SequentialWindows::new(stream(1), 8, 1).is_err());
    }
}
