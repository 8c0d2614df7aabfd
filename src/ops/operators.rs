//! `+ - * /` and unary `-` on tensors, references to them and numbers.
//!
//! [`Tensor`] says when they panic, and which methods return a `Result` instead.

use crate::error::Result;
use crate::tensor::Tensor;

/// The result, or a panic with the message of the error.
#[track_caller]
fn expect(result: Result<Tensor>) -> Tensor {
    match result {
        Ok(y) => y,
        Err(error) => panic!("{error}; the method of the operator's name returns this as an error"),
    }
}

/// An operator on owned and borrowed tensors, and on numbers. The traits are not imported: their
/// methods would hide those of the same names that return a `Result`.
macro_rules! operator {
    ($trait:ident, $method:ident, $left:ty, $right:ty, |$a:ident, $b:ident| $y:expr) => {
        impl std::ops::$trait<$right> for $left {
            type Output = Tensor;

            /// # Panics
            /// If the shapes do not broadcast, or the result does not fit into memory.
            #[track_caller]
            fn $method(self, other: $right) -> Tensor {
                let ($a, $b) = (&self, &other);
                expect($y)
            }
        }
    };
    ($trait:ident, $method:ident, tensors: $tensors:expr, right: $right:expr, left: $left:expr) => {
        operator!($trait, $method, Tensor, Tensor, |a, b| $tensors(a, b));
        operator!($trait, $method, Tensor, &Tensor, |a, b| $tensors(a, b));
        operator!($trait, $method, &Tensor, Tensor, |a, b| $tensors(a, b));
        operator!($trait, $method, &Tensor, &Tensor, |a, b| $tensors(a, b));
        operator!($trait, $method, Tensor, f32, |a, b| $right(a, *b));
        operator!($trait, $method, &Tensor, f32, |a, b| $right(a, *b));
        operator!($trait, $method, f32, Tensor, |a, b| $left(*a, b));
        operator!($trait, $method, f32, &Tensor, |a, b| $left(*a, b));
    };
}

operator!(Add, add, tensors: Tensor::add, right: Tensor::add_scalar, left: |a, b: &Tensor| b.add_scalar(a));
operator!(Sub, sub, tensors: Tensor::sub, right: |a: &Tensor, b: f32| a.add_scalar(-b),
    left: |a, b: &Tensor| Tensor::sub(&Tensor::scalar(a), b));
operator!(Mul, mul, tensors: Tensor::mul, right: scaled, left: |a, b| scaled(b, a));
operator!(Div, div, tensors: Tensor::div, right: |a: &Tensor, b| Tensor::div(a, &Tensor::scalar(b)),
    left: |a, b: &Tensor| Tensor::div(&Tensor::scalar(a), b));

fn scaled(x: &Tensor, factor: f32) -> Result<Tensor> {
    Ok(x.scale(factor))
}

impl std::ops::Neg for Tensor {
    type Output = Tensor;

    fn neg(self) -> Tensor {
        Tensor::neg(&self)
    }
}

impl std::ops::Neg for &Tensor {
    type Output = Tensor;

    fn neg(self) -> Tensor {
        Tensor::neg(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    #[test]
    fn operators_are_the_methods() {
        let (a, b) = (sample(&[2, 3], 1), sample(&[3], 2));
        let same = |found: Tensor, expected: Result<Tensor>| assert_eq!(found.to_vec(), expected.unwrap().to_vec());
        same(&a + &b, Tensor::add(&a, &b));
        same(a.clone() - b.clone(), Tensor::sub(&a, &b));
        same(a.clone() * &b, Tensor::mul(&a, &b));
        same(&a / b.clone(), Tensor::div(&a, &b));
        let scalar = |x: f32| Tensor::scalar(x);
        same(&a + 2.0, Tensor::add(&a, &scalar(2.0)));
        same(&a - 2.0, Tensor::sub(&a, &scalar(2.0)));
        same(&a * 3.0, Tensor::mul(&a, &scalar(3.0)));
        same(&a / 3.0, Tensor::div(&a, &scalar(3.0)));
        same(2.0 + &a, Tensor::add(&scalar(2.0), &a));
        same(2.0 - &a, Tensor::sub(&scalar(2.0), &a));
        same(3.0 * &a, Tensor::mul(&scalar(3.0), &a));
        same(3.0 / &a, Tensor::div(&scalar(3.0), &a));
        same(-&a, Tensor::sub(&scalar(0.0), &a));
        same(-(-a.clone()), Ok(a));
    }

    #[test]
    fn gradients_match_central_differences() {
        let inputs = [sample(&[2, 3], 1), sample(&[3], 2)];
        check("formula", &inputs, |x| Ok(2.0 - (&x[0] * &x[1] + 1.0) * (&x[0] - 0.5) / 3.0 - -&x[1]));
        check("quotient", &[sample(&[3], 2).pow(2.0) + 1.0], |x| Ok(2.0 / &x[0]));
    }

    #[test]
    #[should_panic(expected = "cannot broadcast [2] with [3]")]
    fn shapes_that_do_not_broadcast_panic_with_both() {
        let _ = Tensor::zeros(&[2]) + Tensor::zeros(&[3]);
    }
}
