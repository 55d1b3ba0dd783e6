//! Value state: one value per key.
//!
//! Invariant: a clean cell holds a value. An empty cell is a deletion not yet drained, and goes when it is drained.

use types::{Bincode, Codec, Error, KeyBytes, KeyGroup, KeyGroupRange, Result, Timestamp};

use super::{
    Drained,
    cells::Cells,
    dirty::Recorder,
    intervals::{Interval, Intervals},
    resident::{CellTable, Stored},
    slot::{Expired, Place, Progress, Slot},
};
use crate::{
    Data,
    key::KeyRef,
    run::entry::{Entry, EntryKind},
};

pub(crate) struct ValueSlot<T> {
    pub(super) value: Option<T>,
    /// The interval of a change that is not yet drained, or 0.
    pub(super) dirty: Interval,
    /// The newest interval it was drained for: a sweep of all that lived passes over what it has.
    swept: Interval,
    /// Whether there was no value when that interval began, so that removing it again leaves no trace.
    fresh: bool,
    /// With a store behind: whether it was asked for since the last look for cells to evict.
    pub(super) recent: bool,
    /// With a store behind: what that has.
    pub(super) stored: Stored,
}

impl<T> Default for ValueSlot<T> {
    fn default() -> Self {
        Self { value: None, dirty: 0, swept: 0, fresh: false, recent: false, stored: Stored::Other }
    }
}

impl<T: Data> ValueSlot<T> {
    /// Must be called before each change of `value`.
    #[inline]
    fn touch(&mut self, recorder: Recorder<'_>) {
        if self.dirty != recorder.intervals.open() {
            self.touch_first(recorder);
        }
    }

    /// The first change in the open interval. Out of line, so that further changes stay small.
    #[cold]
    #[inline(never)]
    fn touch_first(&mut self, mut recorder: Recorder<'_>) {
        if self.dirty != 0
            && let Err(error) = self.settle(recorder.at, recorder.intervals)
        {
            recorder.intervals.fail(error);
        }
        if self.swept < recorder.intervals.newest_full()
            && let Err(error) = self.leave_to_sweeps(recorder.at, recorder.intervals)
        {
            recorder.intervals.fail(error);
        }
        self.fresh = self.value.is_none();
        if self.fresh {
            recorder.intervals.note_empty(recorder.at, &[]);
        }
        self.dirty = recorder.intervals.open();
        self.stored.change();
        recorder.intervals.work(self.dirty).pending += 1;
        recorder.list();
    }

    /// Drains the slot to the interval that changed it.
    #[inline]
    pub(super) fn settle(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()> {
        let work = intervals.work(self.dirty);
        self.swept = std::mem::take(&mut self.dirty);
        work.pending -= 1;
        match &self.value {
            Some(value) => work.drained.put(at.group, at.key, &[], value)?,
            None if self.fresh => {}
            None => work.drained.delete(at.group, at.key, &[]),
        }
        Ok(())
    }

    /// Drains a clean slot, before it changes, to all intervals whose sweep has not come by.
    #[inline(never)]
    fn leave_to_sweeps(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()> {
        let Some(value) = &self.value else { return Ok(()) };
        intervals.full_after(self.swept).try_for_each(|work| {
            work.pending -= 1;
            work.drained.put(at.group, at.key, &[], value)
        })
    }
}

impl<T: Data> Slot for ValueSlot<T> {
    type Value = T;
    const IS_ONE_ENTRY: bool = true;
    const ENTRY_BYTES: usize = Drained::of_value::<T>();

    fn is_vacant(&self) -> bool {
        self.value.is_none() && self.dirty == 0
    }

    #[inline]
    fn owes(&self, interval: Interval, is_full: bool) -> bool {
        self.dirty == interval || is_full && self.dirty == 0 && self.swept < interval
    }

    #[inline]
    fn drain(
        &mut self,
        at: Place<'_>,
        interval: Interval,
        _: usize,
        into: &mut Intervals,
    ) -> Result<Progress> {
        if self.dirty == interval {
            self.settle(at, into)?;
        } else if let Some(value) = &self.value {
            self.swept = interval;
            let work = into.work(interval);
            work.pending -= 1;
            work.drained.put(at.group, at.key, &[], value)?;
        }
        Ok(Progress { spent: 1, finished: true })
    }

    fn restore(&mut self, entry: &Entry<'_>, into: &mut Intervals) -> Result<()> {
        if self.dirty != 0 {
            return Err(Error::internal(
                "a value was changed while it waited: its key was not prepared before",
            ));
        }
        let had = self.value.is_some();
        self.value = match entry.kind {
            EntryKind::Put => Some(Bincode::decode(entry.value)?),
            EntryKind::Delete => None,
            EntryKind::Clear => return Err(Error::corrupt("a value state holds a range tombstone")),
        };
        into.count_living(self.value.is_some().into(), had.into());
        Ok(())
    }

    fn expire(
        &mut self,
        expired: Expired<T>,
        _: usize,
        _: &mut Option<KeyBytes>,
        into: &mut Intervals,
    ) -> usize {
        if self.dirty == 0 && self.value.as_ref().is_some_and(|value| expired.has(value)) {
            self.value = None;
            into.count_living(0, 1);
        }
        1
    }
}

/// All cells of one value state. Built-in operators look it up once per batch; users come through
/// [`ValueState`](crate::ValueState).
pub struct ValueTable<T: Data> {
    cells: Cells<ValueSlot<T>>,
}

impl<T: Data> ValueTable<T> {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        Self { cells: Cells::new(groups) }
    }

    /// Of values that have a deadline each.
    pub(crate) fn expiring(groups: KeyGroupRange, deadline: fn(&T) -> Timestamp) -> Self {
        Self { cells: Cells::new(groups).with_deadlines(deadline) }
    }

    /// The value of `key`.
    #[inline]
    #[must_use]
    pub fn get(&self, key: KeyRef<'_>) -> Option<&T> {
        self.cells.get(key)?.value.as_ref()
    }

    /// Tells that the values at these places (hash and key group of each key) are about to be changed, so that they are
    /// fetched from memory together. Changes nothing.
    #[inline]
    pub fn warm(&mut self, places: impl Iterator<Item = (u64, KeyGroup)>) {
        self.cells.warm(places);
    }

    /// The hashes of all keys, in the order in which their cells lie.
    #[cfg(test)]
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        self.cells.hashes()
    }

    /// Lets `change` put, replace or remove the value of `key`. Counts as a change whatever it does.
    #[inline]
    pub fn update<R>(&mut self, key: KeyRef<'_>, change: impl FnOnce(&mut Option<T>) -> R) -> R {
        let (slot, recorder) = self.cells.change(key);
        recorder.intervals.count_living(1, slot.value.is_some().into());
        slot.touch(recorder);
        let result = change(&mut slot.value);
        let has = slot.value.is_some();
        self.cells.intervals.count_living(has.into(), 1);
        result
    }

    /// Puts a value.
    #[inline]
    pub fn set(&mut self, key: KeyRef<'_>, value: T) {
        self.update(key, |place| *place = Some(value));
    }

    /// Removes the value and gives it back. No change if there is none.
    #[inline]
    pub fn take(&mut self, key: KeyRef<'_>) -> Option<T> {
        let (slot, recorder) = self.cells.change_existing(key)?;
        if slot.value.is_some() {
            slot.touch(recorder);
        }
        let value = slot.value.take();
        self.cells.intervals.count_living(0, value.is_some().into());
        value
    }
}

impl<T: Data> CellTable for ValueTable<T> {
    type Slot = ValueSlot<T>;

    fn inner(&self) -> &Cells<ValueSlot<T>> {
        &self.cells
    }

    fn inner_mut(&mut self) -> &mut Cells<ValueSlot<T>> {
        &mut self.cells
    }
}

/// Whether decoding `bytes` as `T` and encoding the result gives the same bytes.
pub(super) fn survives_decoding<T: Data>(bytes: &[u8]) -> Result<bool> {
    let value: T = Bincode::decode(bytes)?;
    let mut again = Vec::with_capacity(bytes.len());
    Bincode::encode(&value, &mut again)?;
    Ok(again == bytes)
}
