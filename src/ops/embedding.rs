//! Rows of a table by id.

use crate::error::{Error, Result};
use crate::kernels::vecmath;
use crate::tensor::{IdTensor, Tensor, tape};

/// Row `ids[i]` of `table` for each id. The gradient of a row is the sum over its uses, in their order.
///
/// # Shapes
/// `table: [vocab_size, d_model]`, `ids: […]` → `[…, d_model]`.
///
/// # Errors
/// [`Error::Id`] if an id has no row; [`Error::Shape`] if the table is no matrix.
pub fn embedding(table: &Tensor, ids: &IdTensor) -> Result<Tensor> {
    let &[vocab_size, d_model] = table.shape() else {
        return Err(Error::shape("embedding table", "[vocab_size, d_model]", table.shape()));
    };
    ids.check_below(vocab_size, "token id")?;
    let mut shape = ids.shape().to_vec();
    shape.push(d_model);
    let y = Tensor::write(&shape, |y| vecmath::gather(table.data(), d_model, ids.data(), y));
    Ok(tape::record("embedding", &[table], y, || {
        let ids = ids.clone();
        Box::new(move |dy, _| {
            let mut dtable = Tensor::zeros(&[vocab_size, d_model]);
            vecmath::scatter_add(dy.data(), d_model, ids.data(), dtable.make_mut());
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
    fn an_id_without_a_row_is_an_error() {
        let error = embedding(&Tensor::zeros(&[4, 2]), &IdTensor::sequence(&[0, 4])).unwrap_err();
        assert_eq!(error.to_string(), "token id at index 1: expected an id below 4, found 4");
    }
}
