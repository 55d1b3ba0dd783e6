//! What state with a time to live should be: sorted maps of values with their deadlines, and what each change does to
//! them.

use std::collections::BTreeMap;

use types::{ExpiryTimes, Timestamp};

use super::{Clocks, TTL};
use crate::conformance::model::{Outcome, group_of, longer};

/// What happens to the state of a key.
#[derive(Clone, Debug)]
pub(in crate::conformance) enum Change {
    Set(u64),
    Add(u64),
    Take,
    /// Of state that reading refreshes, as the next five.
    SetRead(u64),
    Read,
    AppendRead(u32),
    ReadList,
    PutRead(u32, u64),
    ReadEntry(u32),
    Append(u32),
    /// By two others.
    ReplaceList(u32),
    ClearList,
    Put(u32, u64),
    RemoveEntry(u32),
    ClearMap,
    Reduce(u8),
    TakeLongest,
    Aggregate(u32),
    ClearMean,
    /// Of the value in processing time.
    SetClocked(u64),
    TakeClocked,
    /// All that can be read without a change is compared.
    Look,
}

/// A value, and when it has expired.
pub(super) type Until<T> = (T, i64);

pub(super) type Lists = BTreeMap<usize, Vec<Until<u32>>>;
pub(super) type Maps = BTreeMap<usize, BTreeMap<u32, Until<u64>>>;

/// What there is, expired or not, by the number of the key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::conformance) struct Model {
    pub(super) values: BTreeMap<usize, Until<u64>>,
    pub(super) lists: Lists,
    pub(super) maps: Maps,
    pub(super) read_values: BTreeMap<usize, Until<u64>>,
    pub(super) read_lists: Lists,
    pub(super) read_maps: Maps,
    pub(super) longest: BTreeMap<usize, Until<String>>,
    pub(super) means: BTreeMap<usize, Until<Vec<u32>>>,
    pub(super) clocked: BTreeMap<usize, Until<u64>>,
}

/// The event time of a record that is so much ahead of the clock.
pub(super) fn record_time(now: ExpiryTimes, ahead: i64) -> Timestamp {
    Timestamp(now.event.0 + ahead)
}

/// Of one place: what lives is changed, and keeps the later deadline, whatever order the writes come in. Gives back
/// what lived.
fn update<K: Ord, T: Clone>(
    places: &mut BTreeMap<K, Until<T>>,
    place: K,
    (now, deadline): (Timestamp, i64),
    change: impl FnOnce(Option<T>) -> Option<T>,
) -> Option<T> {
    let before = places.remove(&place).filter(|(_, until)| *until > now.0);
    let deadline = before.as_ref().map_or(deadline, |(_, until)| deadline.max(*until));
    let before = before.map(|(value, _)| value);
    if let Some(value) = change(before.clone()) {
        places.insert(place, (value, deadline));
    }
    before
}

/// What has expired stays: a table may have dropped it without a trace, and then nobody removes it from older runs.
fn clear(list: &mut Vec<Until<u32>>, now: ExpiryTimes) {
    list.retain(|(_, until)| *until <= now.event.0);
}

impl Model {
    /// Makes a change where it is `now`.
    pub(in crate::conformance) fn change(
        &mut self,
        index: usize,
        now: ExpiryTimes,
        ahead: i64,
        change: &Change,
    ) -> Outcome {
        let deadline = record_time(now, ahead).max(now.event).0 + TTL as i64;
        let event = (now.event, deadline);
        let processing = (now.processing, now.processing.0 + TTL as i64);
        match *change {
            Change::Set(number) => {
                return Outcome::Number(update(&mut self.values, index, event, |_| Some(number)));
            }
            Change::Add(number) => {
                update(&mut self.values, index, event, |it| Some(it.unwrap_or(0).wrapping_add(number)));
            }
            Change::Take => return Outcome::Number(update(&mut self.values, index, event, |_| None)),
            Change::SetRead(number) => {
                update(&mut self.read_values, index, event, |_| Some(number));
            }
            Change::Read => return Outcome::Number(update(&mut self.read_values, index, event, |it| it)),
            Change::AppendRead(item) => self.read_lists.entry(index).or_default().push((item, deadline)),
            Change::ReadList => {
                let list = self.read_lists.get_mut(&index).into_iter().flatten();
                let living = list.filter(|(_, until)| *until > now.event.0);
                let read = living.map(|(item, until)| {
                    *until = deadline.max(*until);
                    *item
                });
                return Outcome::Numbers(read.collect());
            }
            Change::PutRead(sub, value) => {
                let map = self.read_maps.entry(index).or_default();
                return Outcome::Number(update(map, sub, event, |_| Some(value)));
            }
            Change::ReadEntry(sub) => {
                let map = self.read_maps.entry(index).or_default();
                return Outcome::Number(update(map, sub, event, |it| it));
            }
            Change::Append(item) => self.lists.entry(index).or_default().push((item, deadline)),
            Change::ReplaceList(item) => {
                let list = self.lists.entry(index).or_default();
                clear(list, now);
                list.extend([(item, deadline), (item / 2, deadline)]);
            }
            Change::ClearList => clear(self.lists.entry(index).or_default(), now),
            Change::Put(sub, value) => {
                let map = self.maps.entry(index).or_default();
                return Outcome::Number(update(map, sub, event, |_| Some(value)));
            }
            Change::RemoveEntry(sub) => {
                let map = self.maps.entry(index).or_default();
                return Outcome::Number(update(map, sub, event, |_| None));
            }
            Change::ClearMap => drop(self.maps.remove(&index)),
            Change::Reduce(length) => {
                let text = "-".repeat(length.into());
                let reduce =
                    |it: Option<String>| Some(it.map_or(text.clone(), |it| longer(it, text.clone())));
                update(&mut self.longest, index, event, reduce);
            }
            Change::TakeLongest => return Outcome::Text(update(&mut self.longest, index, event, |_| None)),
            Change::Aggregate(number) => {
                let add = |it: Option<Vec<u32>>| Some([it.unwrap_or_default(), vec![number]].concat());
                update(&mut self.means, index, event, add);
            }
            Change::ClearMean => drop(self.means.remove(&index)),
            Change::SetClocked(number) => {
                return Outcome::Number(update(&mut self.clocked, index, processing, |_| Some(number)));
            }
            Change::TakeClocked => {
                return Outcome::Number(update(&mut self.clocked, index, processing, |_| None));
            }
            Change::Look => {}
        }
        Outcome::Nothing
    }

    /// What lives by these clocks.
    pub(in crate::conformance) fn living(&self, clocks: &Clocks) -> Self {
        fn kept<T: Clone>(
            places: &BTreeMap<usize, Until<T>>,
            now: impl Fn(usize) -> i64,
        ) -> BTreeMap<usize, Until<T>> {
            let living = places.iter().filter(|(index, (_, until))| *until > now(**index));
            living.map(|(index, until)| (*index, until.clone())).collect()
        }
        let event = |index: usize| clocks.at(group_of(index)).event.0;
        let processing = |index: usize| clocks.at(group_of(index)).processing.0;
        let lists = |lists: &Lists| -> Lists {
            let living = lists.iter().map(|(index, list)| {
                (*index, list.iter().copied().filter(|(_, until)| *until > event(*index)).collect())
            });
            living.filter(|(_, list): &(usize, Vec<_>)| !list.is_empty()).collect()
        };
        let maps = |maps: &Maps| -> Maps {
            let living = maps.iter().map(|(index, map)| {
                let entries = map.iter().filter(|(_, (_, until))| *until > event(*index));
                (*index, entries.map(|(sub, until)| (*sub, *until)).collect())
            });
            living.filter(|(_, map): &(usize, BTreeMap<_, _>)| !map.is_empty()).collect()
        };
        Self {
            values: kept(&self.values, event),
            lists: lists(&self.lists),
            maps: maps(&self.maps),
            read_values: kept(&self.read_values, event),
            read_lists: lists(&self.read_lists),
            read_maps: maps(&self.read_maps),
            longest: kept(&self.longest, event),
            means: kept(&self.means, event),
            clocked: kept(&self.clocked, processing),
        }
    }

    /// Elements, and the lists that have any.
    pub(in crate::conformance) fn elements(&self) -> usize {
        let lists = self.lists.values().chain(self.read_lists.values());
        lists.filter(|list| !list.is_empty()).map(|list| 1 + list.len()).sum()
    }

    /// Cells, elements and entries.
    pub(in crate::conformance) fn residents(&self) -> usize {
        let maps = self.maps.values().chain(self.read_maps.values());
        let maps: usize = maps.map(|map| usize::from(!map.is_empty()) + map.len()).sum();
        let values = self.values.len() + self.read_values.len() + self.clocked.len();
        values + self.longest.len() + self.means.len() + self.elements() + maps
    }
}
