//! Batches of examples by index: shuffled, grouped by length, and resumable.

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::random::Rng;
use crate::{Error, Result};

/// A collection of examples that are read by index.
///
/// # Examples
/// ```
/// use loquat::training::data::{Dataset, Example};
///
/// /// Sequences of growing length, made when they are read.
/// struct Counting;
///
/// impl Dataset for Counting {
///     type Example = Example;
///     fn len(&self) -> usize {
///         100
///     }
///     fn get(&self, index: usize) -> loquat::Result<Example> {
///         Ok(Example::causal(&(0..index as u32 + 2).collect::<Vec<_>>()))
///     }
/// }
///
/// assert_eq!(Counting.get(1)?.input_ids, [0, 1]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait Dataset {
    /// The type of an example.
    type Example;

    /// Returns the number of examples.
    fn len(&self) -> usize;

    /// Returns whether there are no examples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the example at an index below [`len`](Dataset::len).
    ///
    /// # Errors
    /// Any error of reading it.
    fn get(&self, index: usize) -> Result<Self::Example>;

    /// Returns the length of an example, in any unit, by which [`DataLoader::buckets`] sorts.
    /// Default: 0.
    fn example_len(&self, _index: usize) -> usize {
        0
    }
}

impl Dataset for Vec<super::Example> {
    type Example = super::Example;

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn get(&self, index: usize) -> Result<super::Example> {
        Ok(self[index].clone())
    }

    fn example_len(&self, index: usize) -> usize {
        self[index].input_ids.len()
    }
}

/// Combines examples into a batch.
///
/// # Examples
/// ```
/// use loquat::training::data::Collate;
/// use loquat::{Rng, Tensor};
///
/// /// Stacks rows of three numbers.
/// struct Rows;
///
/// impl Collate<[f32; 3]> for Rows {
///     type Batch = Tensor;
///     fn collate(&self, examples: Vec<[f32; 3]>, _: &mut Rng) -> loquat::Result<Tensor> {
///         Tensor::from_vec(examples.concat(), &[examples.len(), 3])
///     }
/// }
///
/// let batch = Rows.collate(vec![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &mut Rng::seed(0))?;
/// assert_eq!(batch.shape(), [2, 3]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait Collate<E> {
    /// The type of a batch.
    type Batch;

    /// Combines examples. Random choices (for example, which tokens are masked) come from `rng`,
    /// which depends only on the seed of the loader and the index of the batch, so a resumed run
    /// makes the same choices.
    ///
    /// # Errors
    /// If the examples cannot be combined.
    fn collate(&self, examples: Vec<E>, rng: &mut Rng) -> Result<Self::Batch>;
}

/// A source of batches whose position can be saved and restored.
///
/// # Examples
/// ```
/// use loquat::training::data::{BatchSource, RandomWindows, TokenStream};
///
/// let stream = TokenStream::from_ids((0..100).collect());
/// let mut source = RandomWindows::new(stream.clone(), 8, 4, 42)?;
/// source.next_batch()?;
/// let state = source.state(); // saved with a checkpoint
///
/// let mut resumed = RandomWindows::new(stream, 8, 4, 42)?;
/// resumed.restore(&state)?;
/// assert_eq!(resumed.next_batch()?, source.next_batch()?);
/// # Ok::<(), loquat::Error>(())
/// ```
pub trait BatchSource {
    /// The type of a batch.
    type Batch;

    /// Returns the next batch, or `None` once at the end of each epoch. An endless source never
    /// returns `None`.
    ///
    /// # Errors
    /// Any error of reading the examples.
    fn next_batch(&mut self) -> Result<Option<Self::Batch>>;

    /// Returns the number of batches in an epoch, or `None` if the source is endless.
    fn batches_per_epoch(&self) -> Option<usize>;

    /// Returns the position of the source.
    fn state(&self) -> DataState;

    /// Moves to the saved position of a source with the same settings.
    ///
    /// # Errors
    /// [`Error::Argument`] if the position was saved with other settings or data, so that the
    /// batches would differ.
    fn restore(&mut self, state: &DataState) -> Result<()>;
}

/// The position of a [`BatchSource`], saved with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataState {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The number of batches of this epoch that were returned.
    pub position: u64,
    /// Numbers that must be equal in the source that resumes: seed, sizes, lengths.
    pub settings: Vec<u64>,
}

impl DataState {
    /// Checks that the position was saved with these settings.
    ///
    /// # Errors
    /// [`Error::Argument`] if it was not.
    pub(super) fn check(&self, settings: &[u64]) -> Result<()> {
        if self.settings != settings {
            return Err(Error::argument(
                "position in the data",
                format!("one saved with the settings {settings:?} (seed, batch size, lengths)"),
                format!("{:?}", self.settings),
            ));
        }
        Ok(())
    }
}

/// Batches of a [`Dataset`].
///
/// # Examples
/// ```
/// use loquat::training::data::{BatchSource, DataLoader, Example, PadCollator};
///
/// let examples: Vec<Example> = (2..12).map(|n| Example::causal(&vec![1; n])).collect();
/// let mut loader = DataLoader::new(examples, PadCollator::new(0), 4)?.shuffle(42);
/// let mut sizes = Vec::new();
/// while let Some(batch) = loader.next_batch()? {
///     sizes.push(batch.input_ids.shape()[0]);
/// }
/// assert_eq!((sizes, loader.state().epoch), (vec![4, 4, 2], 1));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone)]
pub struct DataLoader<D, C> {
    dataset: D,
    collate: C,
    order: Order,
    epoch: u64,
    position: usize,
    /// The batches of this epoch, once computed.
    batches: Option<Vec<Vec<usize>>>,
}

impl<D: Dataset, C> std::fmt::Debug for DataLoader<D, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dataset, order, epoch, position, .. } = self;
        write!(f, "DataLoader({} examples, batch_size={}, ", dataset.len(), order.batch_size)?;
        write!(f, "epoch={epoch}, position={position})")
    }
}

impl<D: Dataset, C: Collate<D::Example>> DataLoader<D, C> {
    /// Returns a loader of batches of `batch_size` examples in the order of the dataset; the last
    /// batch of an epoch may be smaller.
    ///
    /// # Errors
    /// [`Error::Argument`] if `batch_size` is 0 or the dataset is empty.
    pub fn new(dataset: D, collate: C, batch_size: usize) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::argument("batch_size", "at least 1", batch_size));
        }
        if dataset.is_empty() {
            return Err(Error::argument("dataset", "at least one example", "none"));
        }
        let order = Order { batch_size, shuffle: None, drop_last: false, bucket_batches: 0 };
        Ok(DataLoader { dataset, collate, order, epoch: 0, position: 0, batches: None })
    }

    /// Shuffles the examples of each epoch, in an order determined by the seed and the epoch.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.order.shuffle = Some(seed);
        self
    }

    /// Drops the last batch of an epoch if it is smaller than the others.
    #[must_use]
    pub fn drop_last(mut self) -> Self {
        self.order.drop_last = true;
        self
    }

    /// Groups examples of similar length: the shuffled examples of every `batches` batches are
    /// sorted by length and cut into batches, which are then shuffled. Without
    /// [`shuffle`](DataLoader::shuffle) the whole dataset is sorted, longest first.
    #[must_use]
    pub fn buckets(mut self, batches: usize) -> Self {
        self.order.bucket_batches = batches;
        self
    }

    fn settings(&self) -> Vec<u64> {
        let Order { batch_size, shuffle, drop_last, bucket_batches } = self.order;
        let sizes = [self.dataset.len(), batch_size, usize::from(drop_last), bucket_batches].map(|n| n as u64);
        [sizes.to_vec(), shuffle.into_iter().collect()].concat()
    }
}

impl<D: Dataset, C: Collate<D::Example>> BatchSource for DataLoader<D, C> {
    type Batch = C::Batch;

    fn next_batch(&mut self) -> Result<Option<C::Batch>> {
        let batches = self.batches.get_or_insert_with(|| {
            self.order.batches(self.dataset.len(), self.epoch, |index| self.dataset.example_len(index))
        });
        let Some(indices) = batches.get(self.position) else {
            self.epoch += 1;
            self.position = 0;
            self.batches = None;
            return Ok(None);
        };
        let examples = indices.iter().map(|&index| self.dataset.get(index)).collect::<Result<_>>()?;
        /// Separates the random numbers of the collator from those of shuffling.
        const COLLATE: u64 = 0x636f_6c6c_6174_6521;
        let seed = self.order.shuffle.unwrap_or(0) ^ COLLATE;
        let mut rng = Rng::stream(seed, self.epoch.wrapping_mul(1 << 32).wrapping_add(self.position as u64));
        let batch = self.collate.collate(examples, &mut rng)?;
        self.position += 1;
        Ok(Some(batch))
    }

    fn batches_per_epoch(&self) -> Option<usize> {
        Some(self.order.n_batches(self.dataset.len()))
    }

    fn state(&self) -> DataState {
        DataState { epoch: self.epoch, position: self.position as u64, settings: self.settings() }
    }

    fn restore(&mut self, state: &DataState) -> Result<()> {
        state.check(&self.settings())?;
        let most = self.order.n_batches(self.dataset.len());
        match usize::try_from(state.position) {
            Ok(position) if position <= most => self.position = position,
            _ => {
                return Err(Error::argument("position in the data", format!("at most {most}"), state.position));
            }
        }
        self.epoch = state.epoch;
        self.batches = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::data::{Batch, Example, PadCollator};

    fn loader(n: u32) -> DataLoader<Vec<Example>, PadCollator> {
        let examples = (0..n).map(|i| Example::class(vec![i; 1 + i as usize % 5], i)).collect();
        DataLoader::new(examples, PadCollator::new(0), 3).unwrap()
    }

    fn next(loader: &mut impl BatchSource<Batch = Batch>) -> Option<Batch> {
        loader.next_batch().unwrap()
    }

    #[test]
    fn a_resumed_loader_goes_on_with_exactly_the_next_batch() {
        let fresh = || loader(17).shuffle(9).buckets(2);
        let mut whole = fresh();
        let all: Vec<Option<Batch>> = (0..20).map(|_| next(&mut whole)).collect();
        assert_eq!(all.iter().filter(|batch| batch.is_none()).count(), 2, "two ends of epochs");
        for stop in 0..20 {
            let mut first = fresh();
            for batch in &all[..stop] {
                assert_eq!(&next(&mut first), batch);
            }
            let state = serde_json::to_string(&first.state()).unwrap();
            let mut second = fresh();
            second.restore(&serde_json::from_str(&state).unwrap()).unwrap();
            for batch in &all[stop..] {
                assert_eq!(&next(&mut second), batch);
            }
        }
    }

    #[test]
    fn states_of_other_settings_are_refused() {
        let state = loader(17).shuffle(9).state();
        for mut other in [loader(18).shuffle(9), loader(17).shuffle(8), loader(17), loader(17).shuffle(9).drop_last()] {
            assert!(matches!(other.restore(&state), Err(Error::Argument { .. })));
        }
        let beyond = DataState { position: 7, ..state };
        assert!(loader(17).shuffle(9).restore(&beyond).is_err());
    }

    #[test]
    fn every_example_comes_once_and_labels_stay_with_it() {
        let mut loader = loader(10).shuffle(1).drop_last();
        assert_eq!(loader.batches_per_epoch(), Some(3));
        let mut seen = Vec::new();
        while let Some(batch) = next(&mut loader) {
            let labels = batch.labels.as_ref().unwrap();
            for (row, &label) in batch.input_ids.data().chunks(batch.seq_len()).zip(labels.data()) {
                assert_eq!(row[0], label);
                seen.push(label);
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn empty_data_and_batches_are_errors() {
        assert!(DataLoader::new(Vec::<Example>::new(), PadCollator::new(0), 1).is_err());
        assert!(DataLoader::new(vec![Example::causal(&[1, 2])], PadCollator::new(0), 0).is_err());
    }
}
