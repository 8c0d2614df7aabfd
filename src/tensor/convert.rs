//! Conversions from and to `ndarray`.

use ndarray::{Array, ArrayD, Dimension, IxDyn};

use super::{IdTensor, Tensor};
use crate::error::{Error, Result};

impl<D: Dimension> From<Array<f32, D>> for Tensor {
    /// Takes over the array's memory if it is in row-major order, otherwise copies it.
    fn from(array: Array<f32, D>) -> Self {
        let shape = array.shape().to_vec();
        let data = if array.is_standard_layout() {
            let (data, offset) = array.into_raw_vec_and_offset();
            let len = shape.iter().product();
            match offset {
                None | Some(0) if data.len() == len => data,
                offset => data[offset.unwrap_or(0)..][..len].to_vec(),
            }
        } else {
            array.iter().copied().collect()
        };
        Tensor::from_vec(data, &shape).expect("an array has as many elements as its shape")
    }
}

impl From<&Tensor> for ArrayD<f32> {
    fn from(tensor: &Tensor) -> Self {
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), tensor.to_vec())
            .expect("a tensor has as many elements as its shape")
    }
}

impl Tensor {
    /// Returns a copy as an array with a fixed number of axes, for example `Ix2`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor has another number of axes.
    pub fn to_array<D: Dimension>(&self) -> Result<Array<f32, D>> {
        ArrayD::from(self)
            .into_dimensionality()
            .map_err(|_| Error::shape("to_array", format!("{} axes", D::NDIM.unwrap_or_default()), self.shape()))
    }
}

impl<D: Dimension> From<Array<u32, D>> for IdTensor {
    fn from(array: Array<u32, D>) -> Self {
        let data: Vec<u32> = array.iter().copied().collect();
        IdTensor::new(data, array.shape()).expect("an array has as many elements as its shape")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Ix2, Ix3, array, s};

    #[test]
    fn arrays_go_in_and_out_in_logical_order() {
        let a = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        assert_eq!(Tensor::from(a.clone()).to_array::<Ix2>().unwrap(), a);
        let t = Tensor::from(a.clone().reversed_axes());
        assert_eq!((t.shape(), t.to_vec()), (&[3, 2][..], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let tail = a.slice_move(s![1.., ..]);
        assert_eq!(Tensor::from(tail).to_vec(), [4.0, 5.0, 6.0]);
        assert!(t.to_array::<Ix3>().is_err());
    }
}
