//! Batches of examples by index: shuffled, in buckets of like length, and resumable.

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::random::Rng;
use crate::{Error, Result};

/// Examples by index.
pub trait Dataset {
    /// One example.
    type Example;

    /// The number of examples.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The example at an index below [`len`](Dataset::len).
    ///
    /// # Errors
    /// Whatever reading it may bring.
    fn get(&self, index: usize) -> Result<Self::Example>;

    /// How long an example is, in any unit: what [`DataLoader::buckets`] sorts by.
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

/// Makes a batch of examples.
pub trait Collate<E> {
    /// What the model is fed.
    type Batch;

    /// Puts examples together. Whoever needs chance (masking tokens, say) takes it from `rng`, which depends on the
    /// loader's seed and on the batch's place alone, so that a resumed run draws the same.
    ///
    /// # Errors
    /// When the examples do not fit each other.
    fn collate(&self, examples: Vec<E>, rng: &mut Rng) -> Result<Self::Batch>;
}

/// A supply of batches that can say where it stands and go on from there.
pub trait BatchSource {
    /// What the model is fed.
    type Batch;

    /// The next batch; none once at the end of each epoch. An endless source has one endless epoch.
    ///
    /// # Errors
    /// Whatever reading the examples may bring.
    fn next_batch(&mut self) -> Result<Option<Self::Batch>>;

    /// Batches in an epoch, unless it is endless.
    fn batches_per_epoch(&self) -> Option<usize>;

    /// Where the source stands.
    fn state(&self) -> DataState;

    /// Goes to where another source of the same settings stood.
    ///
    /// # Errors
    /// [`Error::Argument`] when the other had other settings or other data, so that the run would not be the same.
    fn restore(&mut self, state: &DataState) -> Result<()>;
}

/// Where a [`BatchSource`] stands, to be saved with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataState {
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// Batches of this epoch that were given out.
    pub position: u64,
    /// Numbers that must be the same in the source that goes on: seed, sizes, lengths.
    pub settings: Vec<u64>,
}

impl DataState {
    /// # Errors
    /// [`Error::Argument`] when the settings differ.
    pub(super) fn check(&self, settings: &[u64]) -> Result<()> {
        if self.settings != settings {
            return Err(Error::argument(
                "position in the data",
                format!("one saved under the settings {settings:?} (seed, batch size, lengths)"),
                format!("{:?}", self.settings),
            ));
        }
        Ok(())
    }
}

/// Batches of a [`Dataset`].
///
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
#[derive(Debug, Clone)]
pub struct DataLoader<D, C> {
    dataset: D,
    collate: C,
    order: Order,
    epoch: u64,
    position: usize,
    /// This epoch's batches, once they were needed.
    batches: Option<Vec<Vec<usize>>>,
}

impl<D: Dataset, C: Collate<D::Example>> DataLoader<D, C> {
    /// Batches of `batch_size` examples in the order of the data, the last of an epoch perhaps smaller.
    ///
    /// # Errors
    /// [`Error::Argument`] when the size is 0 or there is no example.
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

    /// Visits the examples of each epoch in another random order, which the seed determines.
    #[must_use]
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.order.shuffle = Some(seed);
        self
    }

    /// Leaves out an epoch's last batch if it is smaller than the others.
    #[must_use]
    pub fn drop_last(mut self) -> Self {
        self.order.drop_last = true;
        self
    }

    /// Puts examples of like length together: the shuffled examples of every `batches` batches are sorted by length
    /// before they are cut into batches, which are then shuffled. Without shuffling all are sorted, the longest first.
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
        /// Sets the collator's chance apart from the shuffling's.
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
