//! List state: elements per key, in the order in which they were appended.
//!
//! What an interval appends to a list becomes entries of its own (chunks), so appending never rewrites what is in older
//! runs. Clearing a list that stands in older runs leaves one range tombstone.

use types::{Bincode, Codec, Error, KeyBytes, KeyGroupRange, Result, Timestamp};

use super::{
    Drained,
    cells::Cells,
    dirty::Recorder,
    intervals::{Grave, Interval, Intervals},
    resident::CellTable,
    slot::{Expired, Place, Progress, Slot},
};
use crate::{
    Data,
    key::KeyRef,
    run::{
        entry::{Entry, EntryKind},
        list_chunk::{CHUNK_ELEMENTS, chunk_number, elements, epoch_of, push_element},
    },
};

pub(crate) struct ListSlot<T> {
    pub(super) items: Vec<T>,
    /// How many of the items stand in runs already.
    pub(super) drained: usize,
    /// The interval of changes that are not yet drained, or 0.
    pub(super) dirty: Interval,
    /// The interval of the last change.
    pub(super) since: Interval,
    /// How many chunks that interval has drained.
    sequence: u32,
    /// Whether the list had elements when the interval of the last change began.
    pub(super) stale: bool,
    /// Whether a range tombstone is to be written before the items.
    cleared: bool,
    /// With a store behind: whether elements before the items are in the store alone.
    pub(super) tail_only: bool,
    /// With a store behind: whether it was asked for since the last look for cells to evict.
    pub(super) recent: bool,
}

impl<T> Default for ListSlot<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            drained: 0,
            dirty: 0,
            since: 0,
            sequence: 0,
            stale: false,
            cleared: false,
            tail_only: false,
            recent: false,
        }
    }
}

impl<T: Data> ListSlot<T> {
    /// Must be called before each change.
    #[inline]
    fn touch(&mut self, recorder: &mut Recorder<'_>) {
        if self.dirty != recorder.intervals.open() {
            self.touch_first(recorder);
        }
    }

    /// The first change in the open interval.
    fn touch_first(&mut self, recorder: &mut Recorder<'_>) {
        if self.dirty != 0
            && let Err(error) = self.drain(recorder.at, self.dirty, usize::MAX, recorder.intervals)
        {
            recorder.intervals.fail(error);
        }
        self.dirty = recorder.intervals.open();
        self.drained = self.items.len();
        self.sequence = 0;
        // What was drained early in this interval does not make the list an old one.
        if self.since != self.dirty {
            self.since = self.dirty;
            self.stale = !self.items.is_empty();
        }
        self.cleared = false;
        recorder.intervals.work(self.dirty).pending += 1;
        recorder.list();
    }

    fn extend(&mut self, mut recorder: Recorder<'_>, items: impl Iterator<Item = T>) {
        self.touch(&mut recorder);
        // One by one: the iterator is the user's, and may panic after some.
        for item in items {
            self.items.push(item);
            recorder.intervals.count_items(1, 0);
            recorder.intervals.count_living(1, 0);
        }
    }

    fn clear(&mut self, mut recorder: Recorder<'_>) {
        self.touch(&mut recorder);
        recorder.intervals.count_items(0, self.items.len());
        recorder.intervals.count_living(0, self.items.len());
        self.items.clear();
        self.drained = 0;
        self.cleared = self.stale || recorder.intervals.has_store();
    }
}

impl<T: Data> Slot for ListSlot<T> {
    type Value = T;
    const IS_ONE_ENTRY: bool = false;
    const ENTRY_BYTES: usize = Drained::of_value::<T>();

    fn is_vacant(&self) -> bool {
        self.items.is_empty() && self.dirty == 0
    }

    fn owes(&self, interval: Interval, _: bool) -> bool {
        self.dirty == interval
    }

    /// Each chunk counts as a cell.
    fn drain(
        &mut self,
        at: Place<'_>,
        interval: Interval,
        budget: usize,
        into: &mut Intervals,
    ) -> Result<Progress> {
        let epoch = into.epoch(interval);
        let (work, mut store) = into.work_and_outgoing(interval);
        let mut spent = 1;
        if std::mem::take(&mut self.cleared) {
            if self.stale {
                work.drained.clear(at.group, at.key);
            } else {
                work.drained.reset(at.group, at.key);
            }
            if let Some(store) = &mut store {
                store.delete_below(at);
            }
        }
        for chunk in self.items[self.drained..].chunks(CHUNK_ELEMENTS) {
            if spent > budget {
                return Ok(Progress { spent, finished: false });
            }
            let sequence = if store.is_some() { work.next_chunk() } else { self.sequence };
            let sub = chunk_number(epoch, sequence);
            let encoded = work.drained.put_encoded(at.group, at.key, &sub, |out| {
                chunk.iter().try_for_each(|item| push_element(out, |out| Bincode::encode(item, out)))
            })?;
            if let Some(store) = &mut store {
                store.put_encoded(at, &sub, encoded);
            }
            self.drained += chunk.len();
            self.sequence += 1;
            spent += 1;
        }
        work.pending -= 1;
        self.dirty = 0;
        Ok(Progress { spent, finished: true })
    }

    fn restore(&mut self, entry: &Entry<'_>, into: &mut Intervals) -> Result<()> {
        let before = self.items.len();
        match entry.kind {
            EntryKind::Put => {
                for element in elements(entry.value) {
                    self.items.push(Bincode::decode(element?)?);
                }
                into.begin_after(epoch_of(entry.sub)?);
            }
            EntryKind::Clear => self.items.clear(),
            EntryKind::Delete => {
                return Err(Error::corrupt("a list state holds a tombstone of a single chunk"));
            }
        }
        into.count_items(self.items.len(), before);
        into.count_living(self.items.len(), before);
        self.drained = self.items.len();
        Ok(())
    }

    /// The oldest half or more at once, so that each element is moved but a few times.
    fn expire(
        &mut self,
        expired: Expired<T>,
        _: usize,
        _: &mut Option<KeyBytes>,
        into: &mut Intervals,
    ) -> usize {
        let is_half = self.items.get(self.items.len() / 2).is_some_and(|item| expired.has(item));
        if self.dirty != 0 || !is_half {
            return 1;
        }
        let gone = self.items.iter().take_while(|item| expired.has(item)).count();
        let rest = self.items.split_off(gone);
        into.bury(std::mem::replace(&mut self.items, rest));
        self.drained = self.items.len();
        into.count_living(0, gone);
        into.count_items(0, gone);
        1 + gone
    }
}

impl<T: Data> Grave for Vec<T> {
    fn drop_some(&mut self, count: usize) -> usize {
        let rest = self.len().saturating_sub(count);
        self.drain(rest..).count()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// All cells of one list state.
pub struct ListTable<T: Data> {
    cells: Cells<ListSlot<T>>,
}

impl<T: Data> ListTable<T> {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        Self { cells: Cells::new(groups) }
    }

    /// Of elements that have a deadline each.
    pub(crate) fn expiring(groups: KeyGroupRange, deadline: fn(&T) -> Timestamp) -> Self {
        Self { cells: Cells::new(groups).with_deadlines(deadline) }
    }

    /// The elements of `key`, oldest first.
    #[must_use]
    pub fn get(&self, key: KeyRef<'_>) -> &[T] {
        self.cells.get(key).map_or(&[], |slot| &slot.items)
    }

    /// Appends elements. No change if there are none.
    pub fn extend(&mut self, key: KeyRef<'_>, items: impl IntoIterator<Item = T>) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_some() {
            let (slot, recorder) = self.cells.change(key);
            slot.extend(recorder, items);
        }
    }

    /// Appends an element.
    #[inline]
    pub fn append(&mut self, key: KeyRef<'_>, item: T) {
        let (slot, recorder) = self.cells.change(key);
        slot.extend(recorder, std::iter::once(item));
    }

    /// Removes all elements. No change if there are none.
    pub fn clear(&mut self, key: KeyRef<'_>) {
        if let Some((slot, recorder)) = self.cells.change_existing(key)
            && !slot.items.is_empty()
        {
            slot.clear(recorder);
        }
    }
}

impl<T: Data> CellTable for ListTable<T> {
    type Slot = ListSlot<T>;

    fn inner(&self) -> &Cells<ListSlot<T>> {
        &self.cells
    }

    fn inner_mut(&mut self) -> &mut Cells<ListSlot<T>> {
        &mut self.cells
    }
}
