//! Timers: sets of (time, key), one for event time and one for processing time, kept and snapshotted as keyed state.
//!
//! A set needs no dirty marks: each interval keeps the difference that it made to the set, which is all its snapshot is.
//! A timer that comes and goes within one interval leaves no trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use types::{Error, KeyBytes, KeyGroup, Result, Timestamp, key_hash};

use super::{
    Drained, StateTable,
    chunks::{Chunks, Refill},
    intervals::Interval,
    slot::Progress,
};
use crate::{
    key::{KeyRef, OwnedKey},
    run::entry::{Entry, EntryKind},
};

/// The order in which timers fire: time, then key group, then key bytes. The same on every backend.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    at: Timestamp,
    group: KeyGroup,
    key: KeyBytes,
}

impl Timer {
    fn new(key: KeyRef<'_>, at: Timestamp) -> Self {
        Self { at, group: key.group, key: KeyBytes::new(key.bytes) }
    }
}

/// What one interval did to the set, and what of it is drained.
struct Difference {
    /// `true`: the timer was not there when the interval began and is there at its end; `false`: the other way round.
    changed: BTreeMap<Timer, bool>,
    drained: Drained,
}

impl Difference {
    fn new(chunks: &Chunks) -> Self {
        Self { changed: BTreeMap::new(), drained: Drained::new(chunks.clone()) }
    }
}

/// All timers of one kind.
pub(crate) struct TimerTable {
    live: BTreeSet<Timer>,
    open: Interval,
    /// By interval, oldest first; the last one is open.
    intervals: VecDeque<Difference>,
    /// The memory that intervals are drained into.
    chunks: Chunks,
    touched: u64,
}

impl TimerTable {
    pub(crate) fn new() -> Self {
        let chunks = Chunks::default();
        let intervals = VecDeque::from([Difference::new(&chunks)]);
        Self { live: BTreeSet::new(), open: 1, intervals, chunks, touched: 0 }
    }

    /// Adds a timer; nothing happens if it is there.
    pub(crate) fn register(&mut self, key: KeyRef<'_>, at: Timestamp) {
        let timer = Timer::new(key, at);
        if self.live.insert(timer.clone()) {
            self.note(timer, true);
        }
    }

    /// Removes a timer; nothing happens if it is not there.
    pub(crate) fn delete(&mut self, key: KeyRef<'_>, at: Timestamp) {
        let timer = Timer::new(key, at);
        if self.live.remove(&timer) {
            self.note(timer, false);
        }
    }

    /// The time of the first timer.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.live.first().map(|timer| timer.at)
    }

    /// Removes the first timer and gives it back, if its time is `until` or before.
    pub(crate) fn pop(&mut self, until: Timestamp) -> Option<(Timestamp, OwnedKey)> {
        if self.next()? > until {
            return None;
        }
        let timer = self.live.pop_first()?;
        let key = OwnedKey { hash: key_hash(&timer.key), group: timer.group, bytes: timer.key.clone() };
        let at = timer.at;
        self.note(timer, false);
        Some((at, key))
    }

    fn note(&mut self, timer: Timer, there: bool) {
        self.touched += 1;
        let open = self.intervals.back_mut().expect("there is always an open interval");
        // A timer that is back where it was is no difference.
        if open.changed.remove(&timer).is_none() {
            open.changed.insert(timer, there);
        }
    }

    fn difference(&mut self, interval: Interval) -> &mut Difference {
        let index = self.intervals.len() - 1 - (self.open - interval) as usize;
        &mut self.intervals[index]
    }
}

impl StateTable for TimerTable {
    fn flip(&mut self, next: Interval, _: bool) {
        let is_whole = self.living().is_some();
        let open = self.open;
        self.difference(open).drained.set_whole(is_whole);
        self.open = next;
        self.intervals.push_back(Difference::new(&self.chunks));
    }

    fn drain(&mut self, interval: Interval, budget: usize) -> Result<Progress> {
        let Difference { changed, drained } = self.difference(interval);
        let mut spent = 0;
        while spent < budget
            && let Some((timer, there)) = changed.pop_first()
        {
            spent += 1;
            let sub = time_bytes(timer.at);
            if there {
                drained.put_encoded(timer.group, &timer.key, &sub, |_| Ok(()))?;
            } else {
                drained.delete(timer.group, &timer.key, &sub);
            }
        }
        Ok(Progress { spent, finished: changed.is_empty() })
    }

    fn is_untouched(&self, interval: Interval) -> bool {
        let index = self.intervals.len() - 1 - (self.open - interval) as usize;
        let interval = &self.intervals[index];
        interval.changed.is_empty() && interval.drained.entries() == 0
    }

    fn take_oldest(&mut self) -> Drained {
        debug_assert!(self.intervals.len() > 1, "the open interval is never taken");
        self.intervals.pop_front().map_or_else(Drained::default, |difference| difference.drained)
    }

    fn restore(&mut self, key: KeyRef<'_>, entry: &Entry<'_>) -> Result<()> {
        let timer = Timer::new(key, time_of(entry.sub)?);
        match entry.kind {
            EntryKind::Put => drop(self.live.insert(timer)),
            EntryKind::Delete => drop(self.live.remove(&timer)),
            EntryKind::Clear => return Err(Error::corrupt("a timer state holds a range tombstone")),
        }
        Ok(())
    }

    fn check_value(&self, value: &[u8]) -> Result<bool> {
        Ok(value.is_empty())
    }

    fn cells(&self) -> usize {
        self.live.len()
    }

    fn undrained(&self) -> usize {
        self.changed() - self.intervals.back().map_or(0, |open| open.changed.len())
    }

    fn changed(&self) -> usize {
        self.intervals.iter().map(|interval| interval.changed.len()).sum()
    }

    fn approx_bytes(&self) -> usize {
        (self.live.len() + self.changed()) * size_of::<Timer>()
    }

    fn touched(&self) -> u64 {
        self.touched
    }

    fn living(&self) -> Option<usize> {
        // An interval drains the timers that came in it, and not those that live.
        self.live.is_empty().then_some(0)
    }

    fn refill(&self) -> Option<Refill> {
        let intervals = self.intervals.iter();
        self.chunks.refill(intervals.map(|it| it.drained.estimate(it.changed.len(), Drained::LEAST)).sum())
    }
}

/// The ordered bytes of a timer's time.
fn time_bytes(at: Timestamp) -> [u8; 8] {
    (at.0 ^ i64::MIN).to_be_bytes()
}

fn time_of(sub: &[u8]) -> Result<Timestamp> {
    let bytes = sub.try_into().map_err(|_| Error::corrupt("the time of a timer is not 8 bytes long"))?;
    Ok(Timestamp(i64::from_be_bytes(bytes) ^ i64::MIN))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use types::{MaxParallelism, ordered};

    use super::*;

    #[test]
    fn times_are_in_the_ordered_encoding() {
        for time in [i64::MIN, -1, 0, 1, i64::MAX] {
            let mut expected = Vec::new();
            ordered::encode_into(&time, &mut expected).unwrap();
            assert_eq!(time_bytes(Timestamp(time)).as_slice(), expected);
            assert_eq!(time_of(&expected).unwrap(), Timestamp(time));
        }
    }

    #[test]
    fn only_the_net_difference_of_an_interval_is_kept() {
        let key = KeyRef::new(b"k", MaxParallelism(4));
        let mut timers = TimerTable::new();
        timers.register(key, Timestamp(1));
        timers.register(key, Timestamp(1));
        timers.register(key, Timestamp(2));
        timers.delete(key, Timestamp(2));
        timers.flip(2, false);
        timers.delete(key, Timestamp(1));
        timers.register(key, Timestamp(1));
        timers.delete(key, Timestamp(9));
        timers.flip(3, false);
        assert_eq!(timers.pop(Timestamp(0)), None);
        assert_eq!(timers.pop(Timestamp(1)).unwrap().0, Timestamp(1));
        timers.flip(4, false);
        for (interval, expected) in [(1, (1, 0)), (2, (0, 0)), (3, (1, 1))] {
            while !timers.drain(interval, 1).unwrap().finished {}
            let drained = timers.take_oldest();
            assert_eq!((drained.entries(), drained.tombstones()), expected, "interval {interval}");
        }
    }
}
