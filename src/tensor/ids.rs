//! Token ids and other indices.

use std::sync::Arc;

use crate::error::{Error, Result};

/// A tensor of unsigned integers of any rank, row-major: token ids, positions, labels.
///
/// A clone shares the memory.
///
/// ```
/// use loquat::IdTensor;
///
/// let ids = IdTensor::batch(&[[5, 6, 7], [8, 9, 0]])?;
/// assert_eq!(ids.shape(), [2, 3]);
/// assert_eq!(ids.data(), [5, 6, 7, 8, 9, 0]);
/// # Ok::<(), loquat::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct IdTensor {
    shape: Vec<usize>,
    data: Arc<[u32]>,
}

impl IdTensor {
    /// Creates a tensor of `shape` from ids in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `data` does not have as many elements as `shape`.
    pub fn new(data: impl Into<Arc<[u32]>>, shape: &[usize]) -> Result<Self> {
        let data = data.into();
        let len = shape.iter().try_fold(1usize, |len, &d| len.checked_mul(d));
        if len != Some(data.len()) {
            return Err(Error::shape("ids", format!("{shape:?}"), [data.len()]));
        }
        Ok(Self { shape: shape.to_vec(), data })
    }

    /// Creates a batch of one sequence: `[1, seq_len]`.
    pub fn sequence(ids: &[u32]) -> Self {
        Self { shape: vec![1, ids.len()], data: ids.into() }
    }

    /// Creates a batch of sequences of equal length: `[batch, seq_len]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if their lengths differ.
    pub fn batch<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self> {
        let seq_len = sequences.first().map_or(0, |s| s.as_ref().len());
        if let Some(other) = sequences.iter().find(|s| s.as_ref().len() != seq_len) {
            return Err(Error::shape("ids", format!("sequences of length {seq_len}"), [other.as_ref().len()]));
        }
        let data: Vec<u32> = sequences.iter().flat_map(|s| s.as_ref().iter().copied()).collect();
        Self::new(data, &[sequences.len(), seq_len])
    }

    /// The same ids in the same order under another shape; no copy.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the number of ids differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().try_fold(1usize, |len, &d| len.checked_mul(d)) != Some(self.len()) {
            let action = format!("reshape {:?}, which has {} ids, to {shape:?}", self.shape, self.len());
            return Err(Error::mismatch(action));
        }
        Ok(Self { shape: shape.to_vec(), data: self.data.clone() })
    }

    /// The length of each axis, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Returns whether there are no ids.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns the ids in row-major order.
    pub fn data(&self) -> &[u32] {
        &self.data
    }

    /// Returns batch size and sequence length of `[batch, seq_len]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are two axes.
    pub(crate) fn batch_and_len(&self) -> Result<(usize, usize)> {
        match self.shape[..] {
            [batch, seq_len] => Ok((batch, seq_len)),
            _ => Err(Error::shape("ids", "[batch, seq_len]", &self.shape)),
        }
    }

    /// Checks that every id is below `limit`.
    ///
    /// # Errors
    /// [`Error::Id`] with the first id that is not.
    pub(crate) fn check_below(&self, limit: usize, what: &str) -> Result<()> {
        match self.data.iter().position(|&id| id as usize >= limit) {
            None => Ok(()),
            Some(at) => Err(Error::Id { what: format!("{what} at index {at}"), id: u64::from(self.data[at]), limit }),
        }
    }
}

impl std::fmt::Debug for IdTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdTensor{:?} {}", self.shape, super::first_of(&self.data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_shape_has_the_same_ids() {
        let ids = IdTensor::new([1, 2, 3, 4], &[4]).unwrap();
        let column = ids.reshape(&[4, 1]).unwrap();
        assert_eq!((column.shape(), column.data()), (&[4, 1][..], ids.data()));
        let error = ids.reshape(&[3]).unwrap_err().to_string();
        assert_eq!(error, "cannot reshape [4], which has 4 ids, to [3]");
    }

    #[test]
    fn ragged_batches_and_large_ids_are_errors() {
        assert!(IdTensor::batch(&[vec![1, 2], vec![3]]).is_err());
        let ids = IdTensor::sequence(&[1, 5, 2]);
        assert!(ids.check_below(6, "token id").is_ok());
        let message = ids.check_below(5, "token id").unwrap_err().to_string();
        assert_eq!(message, "token id at index 1: expected an id below 5, found 5");
    }
}
