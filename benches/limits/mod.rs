//! The limits of the machine, measured in the same run as the kernels: multiply–adds per second,
//! bytes per second.
//!
//! The speed of a shared machine drifts by tens of per cent within minutes, so a fraction of a
//! limit is meaningful only if the limit was measured at the same time.

#![allow(dead_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use loquat::kernels::parallel::{self, Parts};
use loquat::kernels::simd::{Isa, SimdOp, dispatch};

/// The seconds of one call of `f`: the median of rounds of a few milliseconds each, for about
/// `budget`.
pub(crate) fn seconds(budget: Duration, mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    f();
    let once = start.elapsed().as_secs_f64().max(1e-9);
    let calls = ((5e-3 / once) as usize).clamp(1, 1_000_000);
    let mut rounds = Vec::new();
    while rounds.len() < 3 || start.elapsed() < budget {
        let round = Instant::now();
        (0..calls).for_each(|_| f());
        rounds.push(round.elapsed().as_secs_f64() / calls as f64);
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// GFLOP/s of independent multiply–adds in registers, on all threads, at the current instruction
/// set.
pub(crate) fn fma() -> f64 {
    const ROUNDS: usize = 200_000;
    let tasks = 4 * parallel::threads();
    let flops = parallel::team(|| {
        let mut per_task = 0;
        let time = seconds(Duration::from_millis(300), || {
            parallel::for_each(tasks, |_| {
                black_box(dispatch(MulAdds { rounds: ROUNDS }));
            });
            per_task = dispatch(Width) * MulAdds::CHAINS * ROUNDS * 2;
        });
        (tasks * per_task) as f64 / time
    });
    flops / 1e9
}

struct Width;

impl SimdOp for Width {
    type Output = usize;
    #[inline(always)]
    fn eval<I: Isa>(self, _isa: I) -> usize {
        I::LANES
    }
}

struct MulAdds {
    rounds: usize,
}

impl MulAdds {
    /// Enough to hide a latency of four cycles on two units, few enough for sixteen registers.
    const CHAINS: usize = 12;
}

impl SimdOp for MulAdds {
    type Output = f32;
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let (a, b) = (isa.splat(black_box(0.999)), isa.splat(black_box(0.001)));
        let mut chains = [isa.splat(1.0); Self::CHAINS];
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = isa.mul_add(*chain, a, b);
            }
        }
        let mut sum = chains[0];
        for chain in &chains[1..] {
            sum = isa.add(sum, *chain);
        }
        isa.reduce_sum(sum)
    }
}

/// GB/s of reading a buffer of `bytes` repeatedly, on all threads.
pub(crate) fn read(bytes: usize) -> f64 {
    let x = vec![1.0f32; bytes / 4];
    let chunk = share(x.len());
    let time = parallel::team(|| {
        seconds(Duration::from_millis(300), || {
            parallel::for_each(x.len().div_ceil(chunk), |i| {
                let part = &x[i * chunk..x.len().min((i + 1) * chunk)];
                black_box(dispatch(Read(part)));
            });
        })
    });
    bytes as f64 / time / 1e9
}

/// GB/s, read and written together, of copying one buffer of `bytes` to another, on all threads;
/// with non-temporal stores if that is faster.
pub(crate) fn copy(bytes: usize) -> f64 {
    let x = vec![1.0f32; bytes / 4];
    let mut y = vec![0.0f32; bytes / 4];
    let chunk = share(x.len());
    let mut best: f64 = 0.0;
    for streaming in [false, true] {
        let time = parallel::team(|| {
            seconds(Duration::from_millis(300), || {
                let y = Parts::new(&mut y, chunk);
                parallel::for_each(y.count(), |i| {
                    // SAFETY: each task accesses only the part with its own index.
                    #[allow(unsafe_code)]
                    let part = unsafe { y.get(i) };
                    dispatch(Copy { x: &x[y.range(i)], y: part, streaming });
                });
            })
        });
        best = best.max(2.0 * bytes as f64 / time / 1e9);
    }
    best
}

/// The length of a part: several equal parts per thread, of whole vectors.
fn share(len: usize) -> usize {
    len.div_ceil(4 * parallel::threads()).next_multiple_of(64)
}

struct Read<'a>(&'a [f32]);

impl SimdOp for Read<'_> {
    type Output = f32;
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let mut sums = [isa.zero(); 8];
        for block in self.0.chunks_exact(8 * I::LANES) {
            for (sum, x) in sums.iter_mut().zip(block.chunks_exact(I::LANES)) {
                *sum = isa.max(*sum, isa.load(x));
            }
        }
        sums.into_iter().map(|sum| isa.reduce_sum(sum)).sum()
    }
}

struct Copy<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    streaming: bool,
}

impl SimdOp for Copy<'_> {
    type Output = ();
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let mut start = 0;
        if self.streaming {
            start = self.y.as_ptr().align_offset(4 * I::LANES).min(self.x.len());
            self.y[..start].copy_from_slice(&self.x[..start]);
        }
        let (x, y) = (&self.x[start..], &mut self.y[start..]);
        for (x, y) in x.chunks_exact(4 * I::LANES).zip(y.chunks_exact_mut(4 * I::LANES)) {
            for (x, y) in x.chunks_exact(I::LANES).zip(y.chunks_exact_mut(I::LANES)) {
                if self.streaming {
                    // SAFETY: a whole vector, aligned because `start` is aligned and blocks are
                    // whole vectors.
                    #[allow(unsafe_code)]
                    unsafe {
                        isa.stream_ptr(y.as_mut_ptr(), isa.load(x));
                    }
                } else {
                    isa.store(y, isa.load(x));
                }
            }
        }
        isa.stream_fence();
    }
}
