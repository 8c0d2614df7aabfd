//! Embedding look-ups: rows of a table by id.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{IdTensor, Tensor, Weight, tape};

/// Returns row `ids[i]` of `table` for each id. The gradient of a row is the sum over its uses, in
/// their order.
///
/// The table is a [`Tensor`] or a [`Weight`]. Rows of a table in half precision or in blocks are
/// converted to f32; such a table gets no gradient.
///
/// # Shapes
/// `table: [vocab_size, d_model]`, `ids: […]` → `[…, d_model]`.
///
/// # Errors
/// [`Error::Id`] if an id is not below `vocab_size`; [`Error::Shape`] if the table does not have
/// two axes.
///
/// # Examples
/// ```
/// use loquat::{IdTensor, Tensor, ops};
///
/// let table = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[2, 2])?;
/// let rows = ops::embedding(&table, &IdTensor::sequence(&[1, 0, 1]))?;
/// assert_eq!(rows.data(), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn embedding<'w>(table: impl Into<Cow<'w, Weight>>, ids: &IdTensor) -> Result<Tensor> {
    embedding_with_padding(table, ids, None)
}

/// Same as [`embedding`], but the row of `padding_idx` gets no gradient.
///
/// # Errors
/// Same as [`embedding`].
pub fn embedding_with_padding<'w>(
    table: impl Into<Cow<'w, Weight>>,
    ids: &IdTensor,
    padding_idx: Option<u32>,
) -> Result<Tensor> {
    let table = &*table.into();
    let &[vocab_size, d_model] = table.shape() else {
        return Err(Error::shape("embedding table", "[vocab_size, d_model]", table.shape()));
    };
    ids.check_below(vocab_size, "token id")?;
    let mut shape = ids.shape().to_vec();
    shape.push(d_model);
    let table = match table {
        Weight::F32(table) => table,
        Weight::F16(half) => return Ok(Tensor::write(&shape, |y| half.gather(d_model, ids.data(), y))),
        Weight::Bf16(half) => return Ok(Tensor::write(&shape, |y| half.gather(d_model, ids.data(), y))),
        Weight::Blocks(blocks) => return Ok(Tensor::write(&shape, |y| blocks.gather(d_model, ids.data(), y))),
    };
    let y = Tensor::try_write(&shape, |y| vecmath::gather(table.data(), d_model, ids.data(), y))?;
    Ok(tape::record("embedding", &[table], y, || {
        let ids = ids.clone();
        Box::new(move |dy, _| {
            let mut dtable = Tensor::zeros(&[vocab_size, d_model]);
            vecmath::scatter_add(dy.data(), d_model, ids.data(), dtable.make_mut());
            if let Some(row) = padding_idx.filter(|&row| (row as usize) < vocab_size) {
                dtable.make_mut()[row as usize * d_model..][..d_model].fill(0.0);
            }
            Ok(vec![Some(dtable)])
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn gradients_match_central_differences() {
        let ids = IdTensor::batch(&[[1, 0, 3], [3, 3, 1]]).unwrap();
        check("embedding", &[sample(&[4, 5], 1)], |x| embedding(&x[0], &ids));
    }

    #[test]
    fn a_half_table_gives_the_rows_of_its_numbers_in_32_bits() {
        let ids = IdTensor::batch(&[[1, 0, 3], [3, 3, 1]]).unwrap();
        let weight = Weight::from(sample(&[4, 5], 1));
        for half in [weight.to_f16(), weight.to_bf16()] {
            assert_eq!(embedding(&half, &ids).unwrap().data(), embedding(&half.to_tensor(), &ids).unwrap().data());
            assert!(embedding(&half, &IdTensor::sequence(&[4])).is_err());
        }
    }

    #[test]
    fn an_id_without_a_row_is_an_error() {
        let error = embedding(&Tensor::zeros(&[4, 2]), &IdTensor::sequence(&[0, 4])).unwrap_err();
        assert_eq!(error.to_string(), "token id at index 1: expected an id below 4, found 4");
    }
}
