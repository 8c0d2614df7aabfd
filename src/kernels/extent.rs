//! Sizes of shapes and strides with overflow checks, so that a length that exceeds any memory is
//! not taken for a short one.

/// Returns the number of elements of a shape, or `None` on overflow; 0 if an axis has length 0,
/// however long the others are.
pub(crate) const fn size<const N: usize>(shape: [usize; N]) -> Option<usize> {
    let (mut product, mut i, mut empty) = (Some(1usize), 0, false);
    while i < N {
        empty |= shape[i] == 0;
        product = match product {
            Some(product) => product.checked_mul(shape[i]),
            None => None,
        };
        i += 1;
    }
    if empty { Some(0) } else { product }
}

/// Returns one past the last index of axes of (length, stride), or `None` on overflow; 0 if an axis
/// has length 0.
pub(crate) fn extent<const N: usize>(axes: [(usize, usize); N]) -> Option<usize> {
    if axes.iter().any(|&(length, _)| length == 0) {
        return Some(0);
    }
    axes.iter().try_fold(1usize, |end, &(length, stride)| (length - 1).checked_mul(stride)?.checked_add(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_none_and_empty_ones_are_zero() {
        assert_eq!(size([3, 4, 5]), Some(60));
        assert_eq!(size([]), Some(1));
        assert_eq!(size([usize::MAX, usize::MAX, 0]), Some(0));
        assert_eq!((size([1 << 32, 1 << 32]), size([usize::MAX, 1])), (None, Some(usize::MAX)));
        assert_eq!(extent([(2, 100), (3, 10), (4, 1)]), Some(100 + 20 + 4));
        assert_eq!(extent([(1, usize::MAX), (3, 1)]), Some(3));
        assert_eq!(extent([(usize::MAX, usize::MAX), (0, 1)]), Some(0));
        assert_eq!((extent([(2, usize::MAX), (2, 1)]), extent([(3, usize::MAX)])), (None, None));
    }
}
