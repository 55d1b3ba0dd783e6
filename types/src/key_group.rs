//! Key groups: the unit in which keyed state is split over subtasks and moved when the parallelism changes.
//! The arithmetic here is part of the snapshot format.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::SubtaskIndex;

/// A key group: the hash of the ordered key bytes modulo max parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroup(pub u16);

impl fmt::Display for KeyGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of key groups of a job, fixed for its whole life: 1 to 32,768.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MaxParallelism(pub u16);

impl MaxParallelism {
    /// What a job has that does not say otherwise.
    pub const DEFAULT: Self = Self(128);
    /// The greatest allowed value.
    pub const LIMIT: u16 = 32_768;

    /// The key group of a key with this hash (see [`crate::key_hash`]).
    #[must_use]
    #[inline]
    pub fn key_group(self, hash: u64) -> KeyGroup {
        // Asked once for each record: a division would be a good part of all that a record costs.
        if self.0.is_power_of_two() {
            KeyGroup(hash as u16 & (self.0 - 1))
        } else {
            KeyGroup((hash % u64::from(self.0)) as u16)
        }
    }

    /// The subtask, of `parallelism` many, that owns `group`: group x parallelism / max parallelism.
    #[must_use]
    #[inline]
    pub fn owner(self, group: KeyGroup, parallelism: u32) -> SubtaskIndex {
        SubtaskIndex((u64::from(group.0) * u64::from(parallelism) / u64::from(self.0)) as u32)
    }

    /// The key groups that `subtask` of `parallelism` owns: exactly those whose [`owner`](Self::owner) it is.
    #[must_use]
    pub fn range(self, subtask: SubtaskIndex, parallelism: u32) -> KeyGroupRange {
        let max = u64::from(self.0);
        let bound = |index: u64| (index * max).div_ceil(u64::from(parallelism)).min(max) as u16;
        KeyGroupRange { start: bound(u64::from(subtask.0)), end: bound(u64::from(subtask.0) + 1) }
    }

    /// All key groups.
    #[must_use]
    pub const fn all(self) -> KeyGroupRange {
        KeyGroupRange { start: 0, end: self.0 }
    }
}

/// The key groups `start..end`; empty when `start == end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first key group.
    pub start: u16,
    /// The one after the last.
    pub end: u16,
}

impl KeyGroupRange {
    /// Whether `group` is in the range.
    #[must_use]
    pub const fn contains(self, group: KeyGroup) -> bool {
        self.start <= group.0 && group.0 < self.end
    }

    /// How many key groups there are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The key groups in both ranges, `None` if there are none.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (!both.is_empty()).then_some(both)
    }

    /// Whether every key group of `other` is in this range.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        other.is_empty() || (self.start <= other.start && other.end <= self.end)
    }

    /// The key groups in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = KeyGroup> {
        (self.start..self.end).map(KeyGroup)
    }
}

impl fmt::Display for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Debug for KeyGroupRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_key_group_is_the_hash_modulo_their_number() {
        for max in 1..=MaxParallelism::LIMIT {
            for hash in [0, 1, u64::from(max) - 1, u64::from(max), 0x9e37_79b9_7f4a_7c15, u64::MAX] {
                assert_eq!(u64::from(MaxParallelism(max).key_group(hash).0), hash % u64::from(max));
            }
        }
    }

    #[test]
    fn ranges_partition_all_groups_and_agree_with_owner() {
        for max in [1_u16, 2, 7, 127, 128, 1000] {
            let max = MaxParallelism(max);
            for parallelism in 1..=u32::from(max.0).min(40) {
                let mut next = 0;
                for subtask in 0..parallelism {
                    let range = max.range(SubtaskIndex(subtask), parallelism);
                    assert_eq!(range.start, next);
                    assert!(range.iter().all(|group| max.owner(group, parallelism) == SubtaskIndex(subtask)));
                    next = range.end;
                }
                assert_eq!(next, max.0);
            }
        }
    }

    #[test]
    fn a_range_is_the_set_of_its_groups() {
        let set = |range: KeyGroupRange| range.iter().collect::<BTreeSet<_>>();
        let ranges = || (0..6).flat_map(|start| (0..6).map(move |end| KeyGroupRange { start, end }));
        for one in ranges() {
            let groups = set(one);
            assert_eq!((one.len(), one.is_empty()), (groups.len(), groups.is_empty()), "{one}");
            assert!(
                (0..7).map(KeyGroup).all(|group| one.contains(group) == groups.contains(&group)),
                "{one}"
            );
            for other in ranges() {
                let both = &groups & &set(other);
                assert_eq!(
                    one.intersect(other).map(set),
                    (!both.is_empty()).then_some(both),
                    "{one} and {other}"
                );
                assert_eq!(one.covers(other), groups.is_superset(&set(other)), "{one} and {other}");
            }
        }
    }
}
