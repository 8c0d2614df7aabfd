//! How an axis divides a tensor, and a part of it, into blocks.

/// `(outer, axis, inner)`: how many blocks before, at and after `axis`.
pub(crate) fn split_at(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Cuts a part of `[outer, inner]` results, which begins at element `start`, at the blocks of
/// `inner`: the block, the column in it, and the piece, each in turn.
pub(crate) fn by_block<T>(
    start: usize,
    inner: usize,
    part: &mut [T],
) -> impl Iterator<Item = (usize, usize, &mut [T])> {
    let mut at = start;
    let first = (inner - start % inner).min(part.len());
    let (head, tail) = part.split_at_mut(first);
    let pieces = std::iter::once(head).filter(|head| !head.is_empty()).chain(tail.chunks_mut(inner));
    pieces.map(move |piece| {
        let (block, column) = (at / inner, at % inner);
        at += piece.len();
        (block, column, piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_at_blocks() {
        let mut part = [0u8; 9];
        let pieces: Vec<_> =
            by_block(5, 4, &mut part).map(|(block, column, piece)| (block, column, piece.len())).collect();
        assert_eq!(pieces, [(1, 1, 3), (2, 0, 4), (3, 0, 2)]);
        assert_eq!(by_block(2, 4, &mut part[..1]).count(), 1);
        assert_eq!(by_block(2, 4, &mut part[..0]).count(), 0);
    }
}
