//! The batch of a training step, and the collator that pads examples of different lengths.

use super::Collate;
use crate::models::TextBatch;
use crate::ops::AttentionMask;
use crate::random::Rng;
use crate::tensor::IdTensor;
use crate::{Error, Result};

/// The label of positions that the loss ignores: padding, and tokens without a label.
pub const IGNORE_INDEX: u32 = crate::ops::CrossEntropy::IGNORED;

/// The examples of one step, as rows of equal length.
///
/// # Examples
/// ```
/// use loquat::IdTensor;
/// use loquat::training::data::Batch;
///
/// let batch = Batch {
///     input_ids: IdTensor::new(vec![5, 6, 7, 8, 9, 0], &[2, 3])?,
///     attention_mask: Some(IdTensor::new(vec![1, 1, 1, 1, 1, 0], &[2, 3])?),
///     token_type_ids: None,
///     labels: Some(IdTensor::new(vec![1, 0], &[2])?), // one class per example
/// };
/// assert_eq!((batch.batch_size(), batch.seq_len()), (2, 3));
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Token ids, `[batch, seq_len]`.
    pub input_ids: IdTensor,
    /// 1 for a token and 0 for padding, `[batch, seq_len]`; `None` if nothing is padded.
    pub attention_mask: Option<IdTensor>,
    /// 0 for the first and 1 for the second text, `[batch, seq_len]`, if the examples have them.
    pub token_type_ids: Option<IdTensor>,
    /// A label for each token, `[batch, seq_len]`, or for each example, `[batch]`; the loss ignores
    /// [`IGNORE_INDEX`]. In language modelling the label of a token is the next token: labels are
    /// already shifted.
    pub labels: Option<IdTensor>,
}

impl Batch {
    /// Returns the number of examples.
    pub fn batch_size(&self) -> usize {
        self.input_ids.shape()[0]
    }

    /// Returns the number of tokens per row.
    pub fn seq_len(&self) -> usize {
        self.input_ids.shape()[1]
    }

    /// Returns the padding as a mask for attention.
    pub fn mask(&self) -> AttentionMask {
        self.attention_mask.as_ref().map_or_else(AttentionMask::none, AttentionMask::padding)
    }

    /// Returns the labels.
    ///
    /// # Errors
    /// [`Error::Argument`] if the batch has no labels.
    pub fn labels(&self) -> Result<&IdTensor> {
        self.labels.as_ref().ok_or_else(|| Error::argument("batch", "a batch with labels", "one without"))
    }

    /// The number of tokens, without padding.
    pub(crate) fn n_tokens(&self) -> usize {
        match &self.attention_mask {
            Some(mask) => mask.data().iter().filter(|&&attend| attend != 0).count(),
            None => self.input_ids.len(),
        }
    }

    /// The number of labels that are not ignored.
    pub(crate) fn n_labels(&self) -> usize {
        self.labels.as_ref().map_or(0, |labels| labels.data().iter().filter(|&&label| label != IGNORE_INDEX).count())
    }
}

/// The texts of a batch, as the input of an encoder.
///
/// ```
/// use loquat::Rng;
/// use loquat::models::TextBatch;
/// use loquat::training::data::{Collate, Example, PadCollator};
///
/// let examples = vec![Example::class(vec![2, 8, 3], 0), Example::class(vec![2, 3], 1)];
/// let batch = PadCollator::new(0).collate(examples, &mut Rng::seed(0))?;
/// let texts = TextBatch::from(&batch);
/// assert_eq!(texts.input_ids, batch.input_ids);
/// assert_eq!(texts.attention_mask, batch.attention_mask);
/// assert_eq!(batch.labels()?.data(), [0, 1]);
/// # Ok::<(), loquat::Error>(())
/// ```
impl From<&Batch> for TextBatch {
    fn from(batch: &Batch) -> Self {
        let Batch { input_ids, attention_mask, token_type_ids, labels: _ } = batch.clone();
        Self { input_ids, attention_mask, token_type_ids }
    }
}

/// The labels of an example.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Labels {
    /// No labels.
    #[default]
    None,
    /// One class for the whole example.
    Class(u32),
    /// One class per token, or [`IGNORE_INDEX`].
    Tokens(Vec<u32>),
}

/// One training example: token ids and labels.
///
/// # Examples
/// ```
/// use loquat::training::data::{Example, Labels};
///
/// let example = Example::causal(&[5, 6, 7]);
/// assert_eq!(example.input_ids, [5, 6]);
/// assert_eq!(example.labels, Labels::Tokens(vec![6, 7]));
/// assert_eq!(Example::class(vec![5, 6, 7], 1).labels, Labels::Class(1));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Example {
    /// Token ids.
    pub input_ids: Vec<u32>,
    /// 0 for the first and 1 for the second text; empty if the model does not distinguish them.
    pub token_type_ids: Vec<u32>,
    /// The labels.
    pub labels: Labels,
}

impl Example {
    /// Returns an example for language modelling: the label of each token is the next token, so `n`
    /// ids give `n − 1` tokens.
    pub fn causal(ids: &[u32]) -> Self {
        let n = ids.len().saturating_sub(1);
        Example {
            input_ids: ids[..n].to_vec(),
            token_type_ids: Vec::new(),
            labels: Labels::Tokens(ids.get(1..).unwrap_or_default().to_vec()),
        }
    }

    /// Returns an example with one class for the whole text.
    pub fn class(input_ids: Vec<u32>, class: u32) -> Self {
        Example { input_ids, token_type_ids: Vec::new(), labels: Labels::Class(class) }
    }

    /// Returns an example with one class per token.
    pub fn tokens(input_ids: Vec<u32>, labels: Vec<u32>) -> Self {
        Example { input_ids, token_type_ids: Vec::new(), labels: Labels::Tokens(labels) }
    }
}

#[cfg(feature = "tokenizers")]
impl From<crate::text::Encoding> for Example {
    fn from(encoding: crate::text::Encoding) -> Self {
        Example { input_ids: encoding.input_ids, token_type_ids: encoding.token_type_ids, labels: Labels::None }
    }
}

/// A collator that pads the examples of a batch to the length of the longest.
///
/// # Examples
/// ```
/// use loquat::Rng;
/// use loquat::training::data::{Collate, Example, IGNORE_INDEX, PadCollator};
///
/// let examples = vec![Example::causal(&[5, 6, 7]), Example::causal(&[8, 9])];
/// let batch = PadCollator::new(0).collate(examples, &mut Rng::seed(0))?;
/// assert_eq!(batch.input_ids.data(), [5, 6, 8, 0]);
/// assert_eq!(batch.labels.unwrap().data(), [6, 7, 9, IGNORE_INDEX]);
/// assert_eq!(batch.attention_mask.unwrap().data(), [1, 1, 1, 0]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PadCollator {
    pad_token_id: u32,
    left: bool,
    multiple: usize,
    max_length: usize,
}

impl PadCollator {
    /// Returns a collator that pads on the right with `pad_token_id`.
    pub fn new(pad_token_id: u32) -> Self {
        PadCollator { pad_token_id, left: false, multiple: 1, max_length: usize::MAX }
    }

    /// Pads on the left, as generation needs it.
    #[must_use]
    pub fn left(mut self) -> Self {
        self.left = true;
        self
    }

    /// Rounds the length of a batch up to a multiple of `tokens`. Default: 1.
    #[must_use]
    pub fn to_multiple_of(mut self, tokens: usize) -> Self {
        self.multiple = tokens.max(1);
        self
    }

    /// Truncates examples to this many tokens. Default: no truncation.
    #[must_use]
    pub fn max_length(mut self, tokens: usize) -> Self {
        self.max_length = tokens;
        self
    }

    /// Pads lists to `len` and concatenates them.
    fn rows<'a>(&self, lists: impl Iterator<Item = &'a [u32]>, len: usize, fill: u32) -> Vec<u32> {
        let mut rows = Vec::new();
        for list in lists {
            let list = &list[..list.len().min(self.max_length)];
            let filling = std::iter::repeat_n(fill, len - list.len());
            if self.left {
                rows.extend(filling);
                rows.extend_from_slice(list);
            } else {
                rows.extend_from_slice(list);
                rows.extend(filling);
            }
        }
        rows
    }
}

impl Collate<Example> for PadCollator {
    type Batch = Batch;

    /// # Errors
    /// [`Error::Shape`] if an example has a different number of labels or type ids than tokens, or
    /// if the kinds of labels differ between examples.
    fn collate(&self, examples: Vec<Example>, _: &mut Rng) -> Result<Batch> {
        for example in &examples {
            let n = example.input_ids.len();
            if let Labels::Tokens(labels) = &example.labels
                && labels.len() != n
            {
                return Err(Error::shape("labels of an example", format!("[{n}]"), [labels.len()]));
            }
            if !example.token_type_ids.is_empty() && example.token_type_ids.len() != n {
                return Err(Error::shape(
                    "token_type_ids of an example",
                    format!("[{n}]"),
                    [example.token_type_ids.len()],
                ));
            }
        }
        let longest = examples.iter().map(|e| e.input_ids.len().min(self.max_length)).max().unwrap_or(0);
        let len = longest.next_multiple_of(self.multiple);
        let shape = [examples.len(), len];
        let tensor = |rows: Vec<u32>| IdTensor::new(rows, &shape);
        let input_ids = tensor(self.rows(examples.iter().map(|e| &e.input_ids[..]), len, self.pad_token_id))?;
        let ones = vec![1; longest];
        let full = examples.iter().all(|e| e.input_ids.len() >= len);
        let attention_mask = if full {
            None
        } else {
            let attend = examples.iter().map(|e| &ones[..e.input_ids.len().min(longest)]);
            Some(tensor(self.rows(attend, len, 0))?)
        };
        let typed = examples.iter().any(|e| !e.token_type_ids.is_empty());
        let token_type_ids =
            if typed { Some(tensor(self.rows(examples.iter().map(|e| &e.token_type_ids[..]), len, 0))?) } else { None };
        let labels = match examples.first().map(|e| &e.labels) {
            None | Some(Labels::None) => None,
            Some(Labels::Class(_)) => {
                let class = |e: &Example| match e.labels {
                    Labels::Class(class) => Ok(class),
                    _ => Err(Error::shape("labels of a batch", "one class per example", "labels of another kind")),
                };
                let classes: Vec<u32> = examples.iter().map(class).collect::<Result<_>>()?;
                Some(IdTensor::new(classes, &[examples.len()])?)
            }
            Some(Labels::Tokens(_)) => {
                let labels = |e| match e {
                    &Example { labels: Labels::Tokens(ref labels), .. } => Ok(&labels[..]),
                    _ => Err(Error::shape("labels of a batch", "one label per token", "labels of another kind")),
                };
                let lists: Vec<&[u32]> = examples.iter().map(labels).collect::<Result<_>>()?;
                Some(tensor(self.rows(lists.into_iter(), len, IGNORE_INDEX))?)
            }
        };
        Ok(Batch { input_ids, attention_mask, token_type_ids, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collate(collator: &PadCollator, examples: &[Example]) -> Result<Batch> {
        collator.collate(examples.to_vec(), &mut Rng::seed(0))
    }

    #[test]
    fn rows_are_filled_on_either_side_and_cut() {
        let examples = [Example::tokens(vec![1, 2, 3], vec![4, 5, 6]), Example::tokens(vec![7], vec![8])];
        let batch = collate(&PadCollator::new(0).left().to_multiple_of(4), &examples).unwrap();
        assert_eq!(batch.input_ids.shape(), [2, 4]);
        assert_eq!(batch.input_ids.data(), [0, 1, 2, 3, 0, 0, 0, 7]);
        assert_eq!(batch.attention_mask.as_ref().unwrap().data(), [0, 1, 1, 1, 0, 0, 0, 1]);
        let i = IGNORE_INDEX;
        assert_eq!(batch.labels.as_ref().unwrap().data(), [i, 4, 5, 6, i, i, i, 8]);
        assert_eq!((batch.batch_size(), batch.seq_len(), batch.n_tokens(), batch.n_labels()), (2, 4, 4, 4));

        let batch = collate(&PadCollator::new(0).max_length(1), &examples).unwrap();
        assert_eq!((batch.input_ids.data(), batch.attention_mask), (&[1, 7][..], None));
        assert_eq!(batch.labels.unwrap().data(), [4, 8]);
    }

    #[test]
    fn classes_and_types_are_kept() {
        let mut first = Example::class(vec![1, 2], 3);
        first.token_type_ids = vec![0, 1];
        let batch = collate(&PadCollator::new(9), &[first, Example::class(vec![4], 5)]).unwrap();
        assert_eq!(batch.labels.as_ref().unwrap().shape(), [2]);
        assert_eq!(batch.labels.unwrap().data(), [3, 5]);
        assert_eq!(batch.token_type_ids.unwrap().data(), [0, 1, 0, 0]);
        assert_eq!(batch.input_ids.data(), [1, 2, 4, 9]);
    }

    #[test]
    fn labels_that_do_not_fit_are_errors() {
        let collator = PadCollator::new(0);
        assert!(collate(&collator, &[Example::tokens(vec![1, 2], vec![1])]).is_err());
        assert!(collate(&collator, &[Example::class(vec![1], 1), Example::causal(&[1, 2])]).is_err());
        assert!(collate(&collator, &[Example::causal(&[1, 2]), Example::class(vec![1], 1)]).is_err());
        let example = Example { token_type_ids: vec![1, 1], ..Example::class(vec![1], 1) };
        assert!(collate(&collator, &[example]).is_err());
    }

    #[test]
    fn short_texts_have_no_next_token() {
        assert!(Example::causal(&[]).input_ids.is_empty());
        assert_eq!(Example::causal(&[1]).labels, Labels::Tokens(vec![]));
        assert_eq!(collate(&PadCollator::new(0), &[]).unwrap().batch_size(), 0);
    }
}
