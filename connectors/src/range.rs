//! A split of numbered records: what the generator and the collection source read. Splits do not depend on the
//! parallelism, so that a job can go on with another one.

use engine::api::source::Split;
use serde::{Deserialize, Serialize};
use types::{Error, Result};

/// The numbers `next, next + step, ...` below `end`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeSplit {
    index: u32,
    pub(crate) next: u64,
    pub(crate) end: u64,
    pub(crate) step: u64,
}

impl RangeSplit {
    /// The numbers below `count`, in `splits` runs of about the same length, one after another.
    pub(crate) fn runs(count: u64, splits: u32) -> Vec<Self> {
        let bound = |index: u32| {
            let at = u128::from(count) * u128::from(index) / u128::from(splits);
            u64::try_from(at).expect("a part of a count is no greater than it")
        };
        (0..splits).map(|index| Self { index, next: bound(index), end: bound(index + 1), step: 1 }).collect()
    }

    /// All numbers, dealt out to `splits` in turn.
    pub(crate) fn dealt_out(splits: u32) -> Vec<Self> {
        let split = |index| Self { index, next: u64::from(index), end: u64::MAX, step: u64::from(splits) };
        (0..splits).map(split).collect()
    }

    /// Whether it is one of numbers without end.
    pub(crate) fn is_endless(&self) -> bool {
        self.end == u64::MAX
    }

    /// How many numbers are left.
    pub(crate) fn left(&self) -> u64 {
        self.end.saturating_sub(self.next).div_ceil(self.step)
    }

    /// Checks numbers that came from a checkpoint.
    pub(crate) fn check(&self) -> Result<()> {
        if self.step == 0 || self.next > self.end.saturating_add(self.step) {
            return Err(Error::corrupt(format!("a split is damaged: {self:?}; restore an older checkpoint")));
        }
        Ok(())
    }
}

impl Split for RangeSplit {
    fn id(&self) -> String {
        format!("{:010}", self.index)
    }

    fn place(&self) -> String {
        format!("split {}, number {}", self.index, self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(split: &RangeSplit) -> Vec<u64> {
        (split.next..split.end).step_by(usize::try_from(split.step).unwrap_or(usize::MAX)).collect()
    }

    #[test]
    fn runs_cover_all_numbers_in_order() {
        for (count, splits) in [(0, 1), (1, 3), (10, 3), (100, 7), (3, 3)] {
            let runs = RangeSplit::runs(count, splits);
            assert_eq!(runs.len(), splits as usize);
            assert_eq!(runs.iter().flat_map(numbers).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            assert_eq!(runs.iter().map(RangeSplit::left).sum::<u64>(), count);
            assert!(runs.is_sorted_by_key(Split::id));
        }
    }

    #[test]
    fn dealing_out_gives_each_number_to_one_split() {
        let mut seen = Vec::new();
        for mut split in RangeSplit::dealt_out(3) {
            split.end = 20;
            assert_eq!(split.left(), numbers(&split).len() as u64);
            seen.extend(numbers(&split));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }
}
