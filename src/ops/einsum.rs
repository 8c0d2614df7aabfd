//! Einstein summation of two factors, as one batched product of matrices.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// An equation such as `bij,bjk->bik`, its indices sorted by where they occur.
struct Equation {
    a: Vec<char>,
    b: Vec<char>,
    result: Vec<char>,
    /// In both factors and the result.
    batch: Vec<char>,
    /// In the first factor and the result.
    left: Vec<char>,
    /// In the second factor and the result.
    right: Vec<char>,
    /// In both factors: summed.
    summed: Vec<char>,
}

impl Equation {
    fn parse(text: &str) -> Result<Self> {
        let refuse = |expected: &str, found: &str| {
            Err(Error::argument(format!("einsum `{text}`"), expected, format!("`{found}`")))
        };
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let Some((factors, result)) = compact.split_once("->") else {
            return refuse("two factors and a result, such as `bij,bjk->bik`", &compact);
        };
        let Some((a, b)) = factors.split_once(',') else {
            return refuse("two factors, such as `ij,jk`", factors);
        };
        for part in [a, b, result] {
            if let Some(other) = part.chars().find(|c| !c.is_ascii_alphabetic()) {
                return refuse("indices that are single letters", &other.to_string());
            }
            if let Some(twice) = part.chars().find(|&c| part.matches(c).count() > 1) {
                return refuse("each index once in a factor and in the result (no diagonals)", &twice.to_string());
            }
        }
        if let Some(unknown) = result.chars().find(|&c| !a.contains(c) && !b.contains(c)) {
            return refuse("indices of the result that are in a factor", &unknown.to_string());
        }
        if let Some(alone) = a.chars().chain(b.chars()).find(|&c| a.contains(c) != b.contains(c) && !result.contains(c))
        {
            return refuse("indices that are in both factors or in the result (sum others first)", &alone.to_string());
        }
        let of = |text: &str, in_a: bool, in_b: bool| -> Vec<char> {
            text.chars().filter(|&c| a.contains(c) == in_a && b.contains(c) == in_b).collect()
        };
        Ok(Self {
            batch: of(result, true, true),
            left: of(result, true, false),
            right: of(result, false, true),
            summed: a.chars().filter(|&c| b.contains(c) && !result.contains(c)).collect(),
            a: a.chars().collect(),
            b: b.chars().collect(),
            result: result.chars().collect(),
        })
    }
}

/// The tensor with its axes in another order of their names; no copy if it is the same.
fn arranged(x: &Tensor, from: &[char], to: &[char]) -> Result<Tensor> {
    if from == to {
        return Ok(x.clone());
    }
    let place = |c: &char| from.iter().position(|from| from == c).expect("both have the same names");
    x.permute(&to.iter().map(place).collect::<Vec<_>>())
}

/// Sums products of two factors over the indices that the result lacks, for example
/// `einsum("bqd,bkd->bqk", &queries, &keys)`.
///
/// Each letter names an axis. Letters in both factors and the result are a batch, those in both
/// factors alone are summed; the sum is one batched product ([`Tensor::matmul`]) after permuting
/// and reshaping, and has its precision and bits. A factor is copied unless its axes are in the
/// order (batch, result, summed) already, or for the second one (batch, summed, result).
///
/// # Errors
/// [`Error::Argument`] for an equation that is not of this form: not two factors with an explicit
/// result, an index twice in one factor (a diagonal), an index in one factor and nowhere else,
/// `...`. [`Error::Shape`] if a factor has another number of axes; [`Error::Mismatch`] if an index
/// has two lengths. Lengths do not broadcast.
///
/// # Examples
/// ```
/// use loquat::{Tensor, ops::einsum};
///
/// let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], &[2, 2])?;
/// let b = Tensor::from_vec(vec![1.0, 10.0], &[2])?;
/// assert_eq!(einsum("ij,j->i", &a, &b)?.to_vec(), [21.0, 43.0]);
/// assert_eq!(einsum("ij,i->ji", &a, &b)?.to_vec(), [1.0, 30.0, 2.0, 40.0]);
/// # Ok::<(), loquat::Error>(())
/// ```
pub fn einsum(equation: &str, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let e = Equation::parse(equation)?;
    for (name, x, axes) in [("first", a, &e.a), ("second", b, &e.b)] {
        if x.rank() != axes.len() {
            let what = format!("einsum `{equation}`, {name} factor");
            return Err(Error::shape(what, format!("{} axes", axes.len()), x.shape()));
        }
    }
    let length = |c: &char| {
        let of = |x: &Tensor, axes: &[char]| axes.iter().position(|axis| axis == c).map(|axis| x.shape()[axis]);
        of(a, &e.a).or(of(b, &e.b)).expect("every index is in a factor")
    };
    if let Some((c, &d)) = e.b.iter().zip(b.shape()).find(|(c, d)| length(c) != **d) {
        let (a, b, first) = (a.shape(), b.shape(), length(c));
        return Err(Error::mismatch(format!("sum `{equation}` of {a:?} and {b:?}: `{c}` is both {first} and {d}")));
    }
    let lengths = |axes: &[char]| axes.iter().map(length).collect::<Vec<usize>>();
    let size = |axes: &[char]| axes.iter().map(length).product::<usize>();
    let matrices = |rows: &[char], cols: &[char]| match e.batch.is_empty() {
        true => vec![size(rows), size(cols)],
        false => vec![size(&e.batch), size(rows), size(cols)],
    };
    let rows = arranged(a, &e.a, &[&e.batch[..], &e.left, &e.summed].concat())?;
    let rows = rows.reshape(&matrices(&e.left, &e.summed))?;
    let transposed = [&e.batch[..], &e.right, &e.summed].concat();
    let product = if e.b == transposed {
        rows.matmul_transposed(&b.reshape(&matrices(&e.right, &e.summed))?)?
    } else {
        let cols = arranged(b, &e.b, &[&e.batch[..], &e.summed, &e.right].concat())?;
        rows.matmul(&cols.reshape(&matrices(&e.summed, &e.right))?)?
    };
    let natural = [&e.batch[..], &e.left, &e.right].concat();
    arranged(&product.reshape(&lengths(&natural))?, &natural, &e.result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::gradient_check::{check, sample};

    const CASES: [(&str, &[usize], &[usize]); 14] = [
        ("ij,jk->ik", &[3, 4], &[4, 5]),
        ("ij,kj->ik", &[3, 4], &[5, 4]),
        ("ji,jk->ki", &[4, 3], &[4, 5]),
        ("bij,bjk->bik", &[2, 3, 4], &[2, 4, 5]),
        ("bqhd,bkhd->bhqk", &[2, 3, 2, 4], &[2, 5, 2, 4]),
        ("bhqk,bkhd->bqhd", &[2, 2, 3, 5], &[2, 5, 2, 4]),
        ("i,j->ij", &[3], &[4]),
        ("i,i->", &[3], &[3]),
        ("i,i->i", &[3], &[3]),
        ("ij,j->i", &[3, 4], &[4]),
        ("ij, ji -> ", &[3, 4], &[4, 3]),
        (",ij->ji", &[], &[3, 4]),
        ("ij,jk->ik", &[3, 0], &[0, 2]),
        ("bij,bjk->bik", &[2, 0, 4], &[2, 4, 5]),
    ];

    /// The sum over all indices, in `f64`.
    fn naive(equation: &str, a: &Tensor, b: &Tensor) -> Vec<f64> {
        let e = Equation::parse(equation).unwrap();
        let all = [&e.result[..], &e.summed].concat();
        let length = |c: &char| {
            let of = |x: &Tensor, axes: &[char]| axes.iter().position(|axis| axis == c).map(|i| x.shape()[i]);
            of(a, &e.a).or(of(b, &e.b)).unwrap()
        };
        let lengths: Vec<usize> = all.iter().map(length).collect();
        let summed: usize = lengths[e.result.len()..].iter().product();
        let mut y = vec![0.0; lengths[..e.result.len()].iter().product()];
        for i in 0..lengths.iter().product::<usize>() {
            let mut rest = i;
            let mut index = vec![0; all.len()];
            for (index, len) in index.iter_mut().zip(&lengths).rev() {
                (*index, rest) = (rest % len, rest / len);
            }
            let at = |x: &Tensor, axes: &[char]| {
                let offset = axes
                    .iter()
                    .zip(x.shape())
                    .fold(0, |offset, (c, len)| offset * len + index[all.iter().position(|other| other == c).unwrap()]);
                f64::from(x.data()[offset])
            };
            y[i / summed] += at(a, &e.a) * at(b, &e.b);
        }
        y
    }

    #[test]
    fn sums_match_the_naive_loops() {
        for (equation, a, b) in CASES {
            let (a, b) = (sample(a, 1), sample(b, 2));
            let y = einsum(equation, &a, &b).unwrap();
            let expected = naive(equation, &a, &b);
            assert_eq!(y.len(), expected.len(), "{equation}");
            let close = y.data().iter().zip(&expected).all(|(&y, e)| (f64::from(y) - e).abs() < 1e-5);
            assert!(close, "{equation}: expected {expected:?}, found {y:?}");
        }
        let y = einsum("bhqk,bkhd->bqhd", &sample(&[2, 2, 3, 5], 1), &sample(&[2, 5, 2, 4], 2)).unwrap();
        assert_eq!(y.shape(), [2, 3, 2, 4]);
    }

    #[test]
    fn gradients_match_central_differences() {
        for (equation, a, b) in CASES {
            check(equation, &[sample(a, 1), sample(b, 2)], |x| einsum(equation, &x[0], &x[1]));
        }
    }

    #[test]
    fn what_is_not_one_product_is_an_error() {
        let x = Tensor::zeros(&[2, 3]);
        let message = |equation: &str| einsum(equation, &x, &x).unwrap_err().to_string();
        assert_eq!(
            message("ij,jk"),
            "einsum `ij,jk`: expected two factors and a result, such as `bij,bjk->bik`, found `ij,jk`"
        );
        assert_eq!(message("ij->ji"), "einsum `ij->ji`: expected two factors, such as `ij,jk`, found `ij`");
        assert_eq!(
            message("ii,ij->j"),
            "einsum `ii,ij->j`: expected each index once in a factor and in the result (no diagonals), found `i`"
        );
        assert_eq!(
            message("ij,kj->i"),
            "einsum `ij,kj->i`: expected indices that are in both factors or in the result (sum others first), found `k`"
        );
        assert_eq!(
            message("ij,ij->k"),
            "einsum `ij,ij->k`: expected indices of the result that are in a factor, found `k`"
        );
        assert!(message("...j,jk->...k").contains("single letters, found `.`"));
        assert!(message("ij,jk,kl->il").contains("single letters, found `,`"));
        assert_eq!(message("ij,jkl->ikl"), "einsum `ij,jkl->ikl`, second factor: expected 3 axes, found shape [2, 3]");
        assert_eq!(message("ij,jk->ik"), "cannot sum `ij,jk->ik` of [2, 3] and [2, 3]: `j` is both 3 and 2");
    }
}
