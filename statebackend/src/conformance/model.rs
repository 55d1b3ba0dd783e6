//! What state should be: sorted maps, and what each change does to them and gives back.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use types::{KeyGroup, KeyGroupRange, MaxParallelism, ordered};

use super::expiring::{self, Clocks};
use crate::KeyRef;

/// Few groups, so that each holds several keys.
pub(super) const MAX: MaxParallelism = MaxParallelism(8);

/// How many keys there are.
pub(super) const KEYS: usize = 7;

/// What happens to the state of a key.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Set(u64),
    Increment,
    Remove,
    Append(u8),
    ClearList,
    ReplaceList(u8),
    Put(u32, u64),
    RemoveEntry(u32),
    ClearMap,
    Reduce(u8),
    TakeLongest,
    Aggregate(u32),
    Merge(u32),
    ClearMean,
    Register(i64),
    Delete(i64),
    /// Fires the first event-time timer that is due, whichever key's of the same subtask it is.
    Fire(i64),
    RegisterProcessing(i64),
    DeleteProcessing(i64),
    FireProcessing(i64),
    /// Of state with a time to live, by a record that is so much ahead of the watermark, or behind it.
    Expiring(i64, expiring::Change),
}

/// What a change gives back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Nothing,
    Number(Option<u64>),
    Numbers(Vec<u32>),
    Text(Option<String>),
    /// Time, key group, key.
    Timer(Option<Timer>),
}

pub(super) type Timer = (i64, u16, Vec<u8>);

/// What all state should be, by the number of the key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) values: BTreeMap<usize, u64>,
    pub(super) lists: BTreeMap<usize, Vec<String>>,
    pub(super) maps: BTreeMap<usize, BTreeMap<u32, u64>>,
    pub(super) longest: BTreeMap<usize, String>,
    pub(super) means: BTreeMap<usize, Vec<u32>>,
    pub(super) event_timers: BTreeSet<Timer>,
    pub(super) processing_timers: BTreeSet<Timer>,
    pub(super) expiring: expiring::Model,
    pub(super) clocks: Clocks,
    /// Lines so far, so that no two are alike, those that a crash has taken back included.
    pub(super) appended: usize,
}

/// The ordered bytes of a key.
pub(super) fn key_of(index: usize) -> Vec<u8> {
    match index {
        // Too long to lie in place.
        0 => text_key("a key of more than twenty-two bytes"),
        1..=4 => same_hash(index - 1),
        _ => text_key(&format!("key-{index}")),
    }
}

fn text_key(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    ordered::encode_into(text, &mut bytes).expect("a text can be a key");
    bytes
}

/// The first two keys have one hash, and so do the other two: chance brings them too seldom. XXH3 puts these constants
/// over the halves of a short key and over the first word of a long one, and multiplies; what meets a zero leaves no
/// trace.
fn same_hash(index: usize) -> Vec<u8> {
    const OVER_SHORT: [u64; 2] = [0x6782_737b_ea42_39b9, 0xaf56_bc3b_0996_523a];
    const OVER_LONG: u64 = 0xbe4b_a423_396c_feb8;
    const ODD: u64 = 0x1234_5678_9abc_def0;
    let ([low, high], odd) = (OVER_SHORT, ODD);
    let words: &[u64] = match index {
        0 => &[low, high ^ odd],
        1 => &[low ^ odd.swap_bytes(), high],
        2 => &[OVER_LONG, 1, 3, 4],
        _ => &[OVER_LONG, 2, 3, 4],
    };
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub(super) fn group_of(index: usize) -> KeyGroup {
    KeyRef::new(&key_of(index), MAX).group
}

/// The key groups of the subtask that has this key.
pub(super) fn groups_of(index: usize, parallelism: u32) -> KeyGroupRange {
    MAX.range(MAX.owner(group_of(index), parallelism), parallelism)
}

pub(super) fn mean_of(numbers: &[u32]) -> f64 {
    let sum: u64 = numbers.iter().copied().map(u64::from).sum();
    sum as f64 / numbers.len() as f64
}

/// The longer one, the first of two alike.
pub(super) fn longer(earlier: String, new: String) -> String {
    if new.len() > earlier.len() { new } else { earlier }
}

impl Model {
    /// Texts as no others are.
    pub(super) fn lines(&self, count: u8) -> Vec<String> {
        (self.appended..self.appended + usize::from(count)).map(|line| format!("line {line}")).collect()
    }

    /// The text that a [`Change::Reduce`] adds.
    pub(super) fn reduced(&self, length: u8) -> String {
        self.lines(1).remove(0) + &"-".repeat(length.into())
    }

    /// Makes a change.
    pub(super) fn change(&mut self, index: usize, change: &Change, parallelism: u32) -> Outcome {
        let timer = |at: i64| {
            let bytes = key_of(index);
            (at, KeyRef::new(&bytes, MAX).group.0, bytes)
        };
        match *change {
            Change::Set(value) => return Outcome::Number(self.values.insert(index, value)),
            Change::Increment => {
                let count = self.values.entry(index).or_default();
                *count = count.wrapping_add(1);
            }
            Change::Remove => return Outcome::Number(self.values.remove(&index)),
            Change::Append(count) => {
                let lines = self.lines(count);
                self.appended += lines.len();
                self.lists.entry(index).or_default().extend(lines);
            }
            Change::ClearList => drop(self.lists.remove(&index)),
            Change::ReplaceList(count) => {
                let lines = self.lines(count);
                self.appended += lines.len();
                self.lists.remove(&index);
                if !lines.is_empty() {
                    self.lists.insert(index, lines);
                }
            }
            Change::Put(sub, value) => {
                return Outcome::Number(self.maps.entry(index).or_default().insert(sub, value));
            }
            Change::RemoveEntry(sub) => {
                let before = self.maps.get_mut(&index).and_then(|map| map.remove(&sub));
                self.maps.retain(|_, map| !map.is_empty());
                return Outcome::Number(before);
            }
            Change::ClearMap => drop(self.maps.remove(&index)),
            Change::Reduce(length) => {
                let new = self.reduced(length);
                self.appended += 1;
                let earlier = self.longest.remove(&index);
                self.longest.insert(index, earlier.map_or_else(|| new.clone(), |it| longer(it, new.clone())));
            }
            Change::TakeLongest => return Outcome::Text(self.longest.remove(&index)),
            Change::Aggregate(number) => self.means.entry(index).or_default().push(number),
            Change::Merge(number) => self.means.entry(index).or_default().extend([number, 7]),
            Change::ClearMean => drop(self.means.remove(&index)),
            Change::Register(at) => drop(self.event_timers.insert(timer(at))),
            Change::Delete(at) => drop(self.event_timers.remove(&timer(at))),
            Change::RegisterProcessing(at) => drop(self.processing_timers.insert(timer(at))),
            Change::DeleteProcessing(at) => drop(self.processing_timers.remove(&timer(at))),
            Change::Fire(until) => {
                return Outcome::Timer(fire(&mut self.event_timers, groups_of(index, parallelism), until));
            }
            Change::FireProcessing(until) => {
                return Outcome::Timer(fire(
                    &mut self.processing_timers,
                    groups_of(index, parallelism),
                    until,
                ));
            }
            Change::Expiring(ahead, ref change) => {
                let now = self.clocks.at(group_of(index));
                return self.expiring.change(index, now, ahead, change);
            }
        }
        Outcome::Nothing
    }

    /// What so many subtasks go on from, which nobody has told yet how late it is.
    pub(super) fn restored(&self, parallelism: u32) -> Self {
        Self { clocks: self.clocks.restored(parallelism), ..self.clone() }
    }

    /// What lives of the state with a time to live.
    pub(super) fn living(&self) -> expiring::Model {
        self.expiring.living(&self.clocks)
    }

    /// The mean of a key's numbers.
    pub(super) fn mean(&self, index: usize) -> Option<f64> {
        self.means.get(&index).map(|numbers| mean_of(numbers))
    }

    /// Cells, elements and entries after a restore, timers not counted. What has expired is not among them, but for
    /// elements of lists, which may be.
    pub(super) fn residents(&self) -> RangeInclusive<usize> {
        let living = self.living();
        let least = self.permanent() + living.residents();
        least..=least + self.expiring.elements() - living.elements()
    }

    fn permanent(&self) -> usize {
        let lists: usize = self.lists.values().map(|list| 1 + list.len()).sum();
        let maps: usize = self.maps.values().map(|map| 1 + map.len()).sum();
        self.values.len() + self.longest.len() + self.means.len() + lists + maps
    }
}

/// Takes the first timer of these key groups out, if it is due.
pub(super) fn fire(timers: &mut BTreeSet<Timer>, groups: KeyGroupRange, until: i64) -> Option<Timer> {
    let first = timers.iter().find(|timer| groups.contains(KeyGroup(timer.1)));
    let first = first.filter(|timer| timer.0 <= until).cloned()?;
    timers.remove(&first);
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_of_keys_have_one_hash_each() {
        let hashes: Vec<_> = (1..5).map(|index| types::key_hash(&key_of(index))).collect();
        assert!(hashes[0] == hashes[1] && hashes[2] == hashes[3] && hashes[0] != hashes[2], "{hashes:?}");
    }
}
