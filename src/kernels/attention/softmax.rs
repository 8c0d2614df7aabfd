//! One block of keys of the online softmax, forward and backward.
//!
//! Scores are `[keys, PANEL]`, with queries in the lanes.

use super::visible::Visible;
use super::{AttentionShape, Dropout};
use crate::kernels::gemm::micro::PANEL;
use crate::kernels::simd::{Isa, MAX_LANES, SimdOp};
use crate::kernels::vecmath::{GOLDEN, Keep, exp_below_overflow as exp};

/// The number of keys in a block.
pub(super) const BLOCK: usize = 128;
/// The number of running sums of a query's probabilities in a block: key j is added to sum j mod 4.
pub(super) const SUMS: usize = 4;

/// The state of the softmax of a panel of queries: maximum and sum so far.
pub(super) struct Running {
    pub(super) max: [f32; PANEL],
    pub(super) sum: [f32; PANEL],
}

impl Running {
    pub(super) fn new() -> Self {
        Running { max: [f32::NEG_INFINITY; PANEL], sum: [0.0; PANEL] }
    }
}

/// The masked scores of a block, if there are any.
#[derive(Clone, Copy)]
pub(super) struct Masked<'a> {
    pub(super) visible: &'a Visible<'a>,
    pub(super) first_query: usize,
    pub(super) first_key: usize,
    /// Added to the scores before the softmax, one number for each.
    pub(super) added: Option<&'a [f32]>,
}

impl Masked<'_> {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, scores: &mut [f32]) {
        let lane = std::array::from_fn::<i32, PANEL, _>(|i| i as i32);
        for (j, row) in scores.chunks_exact_mut(PANEL).enumerate() {
            let (first, end) = self.visible.lanes(self.first_query, self.first_key + j);
            for i in (0..PANEL).step_by(I::LANES) {
                let lane = isa.load_i32(&lane[i..]);
                let mut s = isa.load(&row[i..]);
                let hidden = isa.splat(f32::NEG_INFINITY);
                if let Some(added) = self.added {
                    let added = isa.load(&added[j * PANEL + i..]);
                    // Masked, even if the score is NaN.
                    s = isa.select(isa.eq(added, hidden), hidden, isa.add(s, added));
                }
                s = isa.select(isa.lt_i32(lane, isa.splat_i32(end)), s, hidden);
                s = isa.select(isa.lt_i32(lane, isa.splat_i32(first)), hidden, s);
                isa.store(&mut row[i..], s);
            }
        }
    }
}

/// Dropout of the probabilities of a block: query i and key j have the index `i · keys + j`,
/// counted on over heads and sequences.
#[derive(Clone, Copy)]
pub(super) struct Dropped {
    keep: Keep,
    /// The index of the block's first probability, multiplied as the hash requires.
    place: u32,
    /// The increment from a query to the next.
    step: u32,
}

impl Dropped {
    /// Returns the dropout of the block that begins at a query and key of the `matrix`-th matrix,
    /// if any.
    pub(super) fn new(shape: &AttentionShape<'_>, matrix: usize, query: usize, key: usize) -> Option<Dropped> {
        let Dropout { p, seed, offset } = shape.dropout?;
        // Indices wrap at 2⁶⁴, as those of `offset` do.
        let row = (matrix as u64).wrapping_mul(shape.queries as u64).wrapping_add(query as u64);
        let place = row.wrapping_mul(shape.keys as u64).wrapping_add(key as u64).wrapping_add(offset);
        let keep = Keep::new(p, seed, place >> 32);
        let [place, step] = [place as u32, shape.keys as u32].map(|x| x.wrapping_mul(GOLDEN));
        Some(Dropped { keep, place, step })
    }

    /// Returns the index in each lane, where lanes are `step` apart.
    #[inline(always)]
    fn lanes<I: Isa>(&self, isa: I, first: usize, step: u32) -> I::I32 {
        let mut places = [0; MAX_LANES];
        for (i, place) in (first as u32..).zip(&mut places) {
            *place = self.place.wrapping_add(i.wrapping_mul(step)) as i32;
        }
        isa.load_i32(&places)
    }
}

/// Converts the scores of a block to probabilities relative to the new maximum.
///
/// Returns whether the maximum of any query changed; then `alpha` holds the factors for the
/// previous sums.
pub(super) struct Update<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) masked: Option<Masked<'a>>,
    pub(super) dropped: Option<Dropped>,
    pub(super) running: &'a mut Running,
    pub(super) alpha: &'a mut [f32; PANEL],
}

impl SimdOp for Update<'_> {
    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let Update { scores, masked, dropped, running, alpha } = self;
        if let Some(masked) = masked {
            masked.apply(isa, scores);
        }
        let mut moved = false;
        for i in (0..PANEL).step_by(I::LANES) {
            let old = isa.load(&running.max[i..]);
            let mut maxima = [old; SUMS];
            let mut quads = scores.chunks_exact(SUMS * PANEL);
            for quad in &mut quads {
                for (max, row) in maxima.iter_mut().zip(quad.chunks_exact(PANEL)) {
                    *max = isa.max(isa.load(&row[i..]), *max);
                }
            }
            for row in quads.remainder().chunks_exact(PANEL) {
                maxima[0] = isa.max(isa.load(&row[i..]), maxima[0]);
            }
            let max = isa.max(isa.max(maxima[0], maxima[1]), isa.max(maxima[2], maxima[3]));
            // For a query without a key so far: exp(−∞ − 0) is zero, whereas exp(−∞ + ∞) is NaN.
            let base = isa.select(isa.eq(max, isa.splat(f32::NEG_INFINITY)), isa.zero(), max);
            let factor = exp(isa, isa.sub(old, base));
            moved |= isa.any(isa.lt(old, max));

            let mut sums = [isa.zero(); SUMS];
            let mut quads = scores.chunks_exact_mut(SUMS * PANEL);
            for quad in &mut quads {
                for (sum, row) in sums.iter_mut().zip(quad.chunks_exact_mut(PANEL)) {
                    let p = exp(isa, isa.sub(isa.load(&row[i..]), base));
                    isa.store(&mut row[i..], p);
                    *sum = isa.add(*sum, p);
                }
            }
            for (sum, row) in sums.iter_mut().zip(quads.into_remainder().chunks_exact_mut(PANEL)) {
                let p = exp(isa, isa.sub(isa.load(&row[i..]), base));
                isa.store(&mut row[i..], p);
                *sum = isa.add(*sum, p);
            }
            let sum = isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3]));
            let before = isa.load(&running.sum[i..]);
            isa.store(&mut running.sum[i..], isa.mul_add(before, factor, sum));
            isa.store(&mut running.max[i..], max);
            isa.store(&mut alpha[i..], factor);
            if let Some(dropped) = dropped {
                let (mut place, step) = (dropped.lanes(isa, i, dropped.step), isa.splat_i32(GOLDEN as i32));
                for row in scores.chunks_exact_mut(PANEL) {
                    let kept = dropped.keep.lanes(isa, isa.load(&row[i..]), place);
                    isa.store(&mut row[i..], kept);
                    place = isa.add_i32(place, step);
                }
            }
        }
        moved
    }
}

/// Same as [`Update`], for one query whose scores are in a row; returns the factor for the previous
/// sums.
pub(super) struct UpdateRow<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) dropped: Option<Dropped>,
    pub(super) max: &'a mut f32,
    pub(super) sum: &'a mut f32,
}

impl SimdOp for UpdateRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let UpdateRow { scores, dropped, max, sum } = self;
        let old = *max;
        let mut maxima = isa.splat(old);
        for part in scores.chunks(I::LANES) {
            maxima = isa.max(isa.load_partial_or(part, f32::NEG_INFINITY), maxima);
        }
        *max = isa.reduce_max(maxima);
        let base = if *max == f32::NEG_INFINITY { 0.0 } else { *max };
        let factor = isa.to_array(exp(isa, isa.splat(old - base)))[0];
        for part in scores.chunks_mut(I::LANES) {
            let p = exp(isa, isa.sub(isa.load_partial_or(part, f32::NEG_INFINITY), isa.splat(base)));
            isa.store_partial(part, p);
        }
        let mut sums = [0.0f32; SUMS];
        for quad in scores.chunks(SUMS) {
            for (sum, p) in sums.iter_mut().zip(quad) {
                *sum += p;
            }
        }
        let block = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        if let Some(dropped) = dropped {
            let mut place = dropped.lanes(isa, 0, GOLDEN);
            for part in scores.chunks_mut(I::LANES) {
                let kept = dropped.keep.lanes(isa, isa.load_partial(part), place);
                isa.store_partial(part, kept);
                place = isa.add_i32(place, isa.splat_i32(GOLDEN.wrapping_mul(I::LANES as u32) as i32));
            }
        }
        let [before, factors, block] = [*sum, factor, block].map(|x| isa.splat(x));
        *sum = isa.to_array(isa.mul_add(before, factors, block))[0];
        factor
    }
}

/// The backward pass through a block: from scores and `dp = dO·Vᵀ` to probabilities and
/// `ds = p ∘ (dp − delta)`.
///
/// With dropout, `p` are the probabilities after it, and `dp` is dropped in the same way. Rows of
/// `p` and `ds` are `ld` apart and begin at the panel's column; `lse` is +∞ for fully masked
/// queries.
pub(super) struct UpdateBackward<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) dp: &'a [f32],
    pub(super) masked: Option<Masked<'a>>,
    pub(super) dropped: Option<Dropped>,
    pub(super) lse: &'a [f32; PANEL],
    pub(super) delta: &'a [f32; PANEL],
    pub(super) p: &'a mut [f32],
    pub(super) ds: &'a mut [f32],
    pub(super) ld: usize,
}

impl SimdOp for UpdateBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let UpdateBackward { scores, dp, masked, dropped, lse, delta, p, ds, ld } = self;
        let some_hidden = masked.is_some();
        if let Some(masked) = masked {
            masked.apply(isa, scores);
        }
        for i in (0..PANEL).step_by(I::LANES) {
            let (lse, delta) = (isa.load(&lse[i..]), isa.load(&delta[i..]));
            let outputs = p.chunks_mut(ld).zip(ds.chunks_mut(ld));
            let rows = scores.chunks_exact(PANEL).zip(dp.chunks_exact(PANEL)).zip(outputs);
            let Some(dropped) = dropped else {
                for ((s, dp), (p, ds)) in rows {
                    let prob = exp(isa, isa.sub(isa.load(&s[i..]), lse));
                    isa.store(&mut p[i..], prob);
                    isa.store(&mut ds[i..], slope(isa, some_hidden, prob, isa.load(&dp[i..]), delta));
                }
                continue;
            };
            let (mut place, step) = (dropped.lanes(isa, i, dropped.step), isa.splat_i32(GOLDEN as i32));
            for ((s, dp), (p, ds)) in rows {
                let prob = exp(isa, isa.sub(isa.load(&s[i..]), lse));
                let dp = dropped.keep.lanes(isa, isa.load(&dp[i..]), place);
                isa.store(&mut p[i..], dropped.keep.lanes(isa, prob, place));
                isa.store(&mut ds[i..], slope(isa, some_hidden, prob, dp, delta));
                place = isa.add_i32(place, step);
            }
        }
    }
}

/// Computes p (dp - delta); 0 for a masked key, whose dp may be NaN.
#[inline(always)]
fn slope<I: Isa>(isa: I, some_hidden: bool, p: I::F32, dp: I::F32, delta: I::F32) -> I::F32 {
    let ds = isa.mul(p, isa.sub(dp, delta));
    if some_hidden { isa.select(isa.eq(p, isa.zero()), isa.zero(), ds) } else { ds }
}
