//! The Huffman tree of a vocabulary, for hierarchical softmax (Morin and Bengio 2005; Mikolov et
//! al. 2013).
//!
//! Each word is a leaf. Each inner node has a row, and the probability of a word is the product of
//! σ(±x · node) over the inner nodes on the path from the root. Frequent words have short paths.

/// The path of each word: inner nodes and the branch taken at each.
#[derive(Clone, Debug)]
pub(crate) struct Huffman {
    starts: Vec<u32>,
    nodes: Vec<u32>,
    labels: Vec<f32>,
}

impl Huffman {
    /// Builds the tree of words with these counts, largest first. There is one inner node less than
    /// there are words.
    pub(crate) fn new(counts: &[u64]) -> Self {
        let n = counts.len();
        // Two ascending queues: leaves from the rarest up, and inner nodes in the order of their
        // creation.
        let mut weight: Vec<u64> = counts.to_vec();
        let mut parent = vec![(0u32, 0.0f32); (2 * n).saturating_sub(1)];
        let (mut leaf, mut inner) = (n, n);
        for node in n..(2 * n).saturating_sub(1) {
            let mut next = |made: usize| {
                if leaf > 0 && (inner >= made || weight[leaf - 1] <= weight[inner]) {
                    leaf -= 1;
                    leaf
                } else {
                    inner += 1;
                    inner - 1
                }
            };
            let (a, b) = (next(node), next(node));
            // word2vec gives label 1 to code 0, the first, lighter child.
            parent[a] = (node as u32, 1.0);
            parent[b] = (node as u32, 0.0);
            weight.push(weight[a] + weight[b]);
        }
        let (mut starts, mut nodes, mut labels) = (vec![0], Vec::new(), Vec::new());
        for word in 0..n {
            let (start, mut at) = (nodes.len(), word);
            while at != 2 * n - 2 {
                let (up, label) = parent[at];
                nodes.push(up - n as u32);
                labels.push(label);
                at = up as usize;
            }
            nodes[start..].reverse();
            labels[start..].reverse();
            starts.push(nodes.len() as u32);
        }
        Huffman { starts, nodes, labels }
    }

    /// Returns the inner nodes from the root to a word, and the label of each.
    pub(crate) fn path(&self, word: u32) -> (&[u32], &[f32]) {
        let range = self.starts[word as usize] as usize..self.starts[word as usize + 1] as usize;
        (&self.nodes[range.clone()], &self.labels[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_an_optimal_code() {
        let counts = [45, 16, 13, 12, 9, 5];
        let tree = Huffman::new(&counts);
        let lengths: Vec<usize> = (0..6).map(|w| tree.path(w).0.len()).collect();
        assert_eq!(lengths, [1, 3, 3, 3, 4, 4]);
        assert!((0..6).all(|w| tree.path(w).0[0] == 4), "every path starts at the root");
        let mut codes: Vec<_> = (0..6).map(|w| format!("{:?}", tree.path(w).1)).collect();
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), 6);
    }

    #[test]
    fn one_word_has_an_empty_path() {
        assert_eq!(Huffman::new(&[7]).path(0).0, [0u32; 0]);
        assert_eq!(Huffman::new(&[7, 7]).path(1).0, [0]);
    }
}
