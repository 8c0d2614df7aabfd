//! Distribution of sequences over threads: each thread takes some sequences through all steps,
//! without synchronisation within a step.
//!
//! A step of a small layer is a product of some microseconds, which is less than two threads need
//! to synchronise. Sequences are independent, so a *lane*, a range of the schedule's slots, can be
//! computed by one thread alone. Rows keep their slots in all steps; each step has a range of rows
//! for each lane.

use std::ops::Range;

use super::schedule::Schedule;
use crate::kernels::parallel;

/// The limit, in bytes, of the recurrent weights that every thread reads at each step. For an LSTM
/// with twelve sequences on two threads, lanes are a third faster at 0.25 MB, a sixth at 1 MB and a
/// tenth at 2.4 MB; at 4 MB it is equally fast if each thread reads a share of the weights for all
/// sequences.
const CACHED: usize = 3 << 20;

/// The slots of each lane.
pub(super) struct Lanes {
    batch: usize,
    /// The number of slots of a lane; the last may have fewer.
    size: usize,
}

impl Lanes {
    /// Returns as many lanes as there are threads if recurrent weights of this size in bytes fit
    /// into each thread's cache, otherwise one.
    pub(super) fn new(schedule: &Schedule, weights: usize) -> Self {
        let lanes = if weights <= CACHED && schedule.steps() > 1 { parallel::threads() } else { 1 };
        Self { batch: schedule.batch, size: schedule.batch.div_ceil(lanes).max(1) }
    }

    fn slots(&self) -> impl Iterator<Item = Range<usize>> {
        (0..self.batch).step_by(self.size).map(|first| first..self.batch.min(first + self.size))
    }

    /// Returns, for each lane, its rows of each step, as indices of packed rows.
    pub(super) fn rows(&self, schedule: &Schedule) -> Vec<Vec<Range<usize>>> {
        let of_step = |step: usize, slots: &Range<usize>| {
            let rows = schedule.step(step);
            rows.start + slots.start.min(rows.len())..rows.start + slots.end.min(rows.len())
        };
        self.slots().map(|slots| (0..schedule.steps()).map(|step| of_step(step, &slots)).collect()).collect()
    }

    /// Returns, for each lane, its rows of each part of a buffer in which the first `active` slots
    /// of a part have a row; an empty lane has none.
    pub(super) fn cut<'a>(
        &self,
        active: impl Iterator<Item = usize>,
        width: usize,
        mut data: &'a mut [f32],
    ) -> Vec<Vec<&'a mut [f32]>> {
        let width = if data.is_empty() { 0 } else { width };
        let mut lanes: Vec<Vec<_>> = self.slots().map(|_| Vec::new()).collect();
        for active in active {
            for (lane, slots) in lanes.iter_mut().zip(self.slots()) {
                let rows = slots.end.min(active) - slots.start.min(active);
                lane.push(data.split_off_mut(..rows * width).expect("a row for each active slot"));
            }
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_belongs_to_one_lane() {
        let schedule = Schedule::new(5, 3, Some(&[1, 3, 0, 2, 3]), false).unwrap();
        for size in [1, 2, 3, 5] {
            let lanes = Lanes { batch: 5, size };
            let mut rows: Vec<usize> = lanes.rows(&schedule).into_iter().flatten().flatten().collect();
            rows.sort();
            assert!(rows.iter().copied().eq(0..schedule.rows.len()), "{rows:?}");
            let mut data: Vec<f32> = (0..2 * schedule.rows.len()).map(|i| i as f32).collect();
            for (cut, rows) in lanes.cut(schedule.active(), 2, &mut data).iter().zip(lanes.rows(&schedule)) {
                assert_eq!(cut.len(), schedule.steps());
                for (part, rows) in cut.iter().zip(rows) {
                    assert!(part.iter().copied().eq((2 * rows.start..2 * rows.end).map(|i| i as f32)));
                }
            }
            assert!(lanes.cut(schedule.active(), 2, &mut []).iter().flatten().all(|part| part.is_empty()));
        }
    }
}
