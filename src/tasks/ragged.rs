//! Runs an encoder over many texts without padding.

use crate::error::Result;
use crate::generation::sampler::softmax;
use crate::kernels::parallel;
use crate::models::encoder::TextEncoder;
use crate::tensor::{IdTensor, Tensor, no_grad};
use crate::text::Encoding;

/// Tokens per forward pass: enough for efficient matrix products, few enough for activations to fit
/// the caches.
const TOKENS: usize = 512;

/// Calls `each` with the index of every non-empty text and its hidden states
/// `[tokens, hidden_size]`.
///
/// Texts are sorted by length and concatenated, several per forward pass. Each result has the same
/// bits as for the text alone.
pub(super) fn hidden_states(
    encoder: &TextEncoder,
    encodings: &[Encoding],
    mut each: impl FnMut(usize, &Tensor) -> Result<()> + Send,
) -> Result<()> {
    let mut order: Vec<usize> = (0..encodings.len()).filter(|&i| !encodings[i].is_empty()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(encodings[i].len()));
    // One team for all batches, so that no batch has to wake up the workers.
    parallel::team(|| {
        let mut rest = order.as_slice();
        while let Some(&longest) = rest.first() {
            let mut total = encodings[longest].len();
            let fits = rest[1..].iter().take_while(|&&i| {
                total += encodings[i].len();
                total <= TOKENS
            });
            let (batch, behind) = rest.split_at(1 + fits.count());
            rest = behind;
            let gather = |list: fn(&Encoding) -> &[u32]| {
                let all: Vec<u32> = batch.iter().flat_map(|&i| list(&encodings[i])).copied().collect();
                let len = all.len();
                IdTensor::new(all, &[len])
            };
            let (ids, types) = (gather(|e| &e.input_ids)?, gather(|e| &e.token_type_ids)?);
            let lengths: Vec<usize> = batch.iter().map(|&i| encodings[i].len()).collect();
            let hidden = no_grad(|| encoder.forward_ragged(&ids, Some(&types), &lengths))?;
            let mut start = 0;
            for (&i, len) in batch.iter().zip(lengths) {
                each(i, &hidden.rows(start, len))?;
                start += len;
            }
        }
        Ok(())
    })
}

/// Returns the softmax of the logits in f32.
pub(super) fn probs(logits: &[f32]) -> Vec<f32> {
    softmax(logits).into_iter().map(|p| p as f32).collect()
}

/// Returns the `k` largest scores with their indices, largest first; ties by smaller index.
pub(super) fn top(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut all: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    let better = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if k < all.len() {
        all.select_nth_unstable_by(k, better);
        all.truncate(k);
    }
    all.sort_unstable_by(better);
    all
}
