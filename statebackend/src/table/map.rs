//! Map state: a sorted map per key, each of its entries a cell of its own.
//!
//! Every interval keeps its own list of changed entries per map, so that draining goes in slices however large a map is.
//! Clearing is O(1): the entries are detached, drained from there if an older interval still needs them, and dropped in
//! slices, too. A map that stands in older runs leaves one range tombstone.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use types::{Bincode, Codec, KeyBytes, KeyGroupRange, Result, Timestamp};

use super::{
    Drained,
    cells::Cells,
    dirty::Recorder,
    intervals::{Grave, Interval, Intervals},
    pieces::Pieces,
    resident::{CellTable, Stored},
    slot::{Expired, Place, Progress, Slot},
};
use crate::{
    Data,
    key::KeyRef,
    run::entry::{Entry, EntryKind},
    store::Order,
};

pub(crate) type Entries<V> = BTreeMap<KeyBytes, MapCell<V>>;

pub(crate) struct MapCell<V> {
    pub(super) value: Option<V>,
    /// The interval of a change that is not yet drained, or 0.
    dirty: Interval,
    /// Whether nothing of older runs shows here, so that removing the value leaves no trace.
    fresh: bool,
    /// With a store behind: what that has.
    pub(super) stored: Stored,
}

impl<V: Data> MapCell<V> {
    /// A cell that is as older runs have it, and the store if there is one.
    pub(super) fn clean(value: Option<V>) -> Self {
        let stored = Stored::of(value.as_ref());
        Self { value, dirty: 0, fresh: false, stored }
    }

    /// Drains the cell to the interval that changed it.
    fn settle(&mut self, at: Place<'_>, sub: &[u8], intervals: &mut Intervals) -> Result<()> {
        let work = intervals.work(self.dirty);
        self.dirty = 0;
        work.pending -= 1;
        match &self.value {
            Some(value) => work.drained.put(at.group, at.key, sub, value)?,
            None if self.fresh => {}
            None => work.drained.delete(at.group, at.key, sub),
        }
        Ok(())
    }
}

/// What one interval changed in one map.
pub(crate) struct Changes {
    pub(super) interval: Interval,
    /// Whether the map had entries when the interval began.
    stale: bool,
    /// Whether a range tombstone is to be written.
    cleared: bool,
    /// The map keys that were changed after the last clearing. Some may have been drained early.
    subs: Pieces<KeyBytes>,
}

/// Entries that were cleared while older intervals still needed some of them.
pub(crate) struct Detached<V> {
    entries: Entries<V>,
    changes: VecDeque<Changes>,
}

pub(crate) struct MapSlot<V> {
    pub(super) entries: Entries<V>,
    /// Entries with a value.
    pub(super) live: usize,
    /// By interval, oldest first; those in `detached` are older still.
    pub(super) changes: VecDeque<Changes>,
    pub(super) detached: VecDeque<Detached<V>>,
    /// With a store behind: whether it may have entries that are not here.
    pub(super) partial: bool,
    /// With a store behind: whether all that it has is gone, and was not told so.
    pub(super) wiped: bool,
    /// With a store behind: whether it is known to have entries that are not here. Known from when it was looked up to
    /// the next first change of an interval.
    pub(super) beyond: Option<bool>,
    /// With a store behind: whether it was asked for since the last look for cells to evict.
    pub(super) recent: bool,
}

impl<V> Default for MapSlot<V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            live: 0,
            changes: VecDeque::new(),
            detached: VecDeque::new(),
            partial: false,
            wiped: false,
            beyond: None,
            recent: false,
        }
    }
}

impl<V: Data> MapSlot<V> {
    /// The changes of the open interval. Must be called before each change.
    fn changes<'a>(
        changes: &'a mut VecDeque<Changes>,
        live: usize,
        beyond: &mut Option<bool>,
        recorder: &mut Recorder<'_>,
    ) -> &'a mut Changes {
        let interval = recorder.intervals.open();
        if changes.back().is_none_or(|last| last.interval != interval) {
            recorder.list();
            let stale = beyond.take() == Some(true) || live > 0;
            if !stale {
                recorder.intervals.note_empty(recorder.at, &[]);
            }
            changes.push_back(Changes { interval, stale, cleared: false, subs: Pieces::default() });
        }
        changes.back_mut().expect("one was pushed if there was none")
    }

    fn update<R>(
        &mut self,
        sub: &[u8],
        mut recorder: Recorder<'_>,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> R {
        if recorder.intervals.has_store() {
            self.settle_clearing(&mut recorder);
        }
        let changes = Self::changes(&mut self.changes, self.live, &mut self.beyond, &mut recorder);
        let Recorder { at, intervals, .. } = recorder;
        let cell = self.entries.entry(KeyBytes::new(sub)).or_insert_with(|| {
            intervals.count_items(1, 0);
            // Where a store stands behind, whoever has no cell by now has nothing there.
            MapCell { value: None, dirty: 0, fresh: true, stored: Stored::Nothing }
        });
        if cell.dirty != changes.interval {
            if cell.dirty != 0
                && let Err(error) = cell.settle(at, sub, intervals)
            {
                intervals.fail(error);
            }
            cell.fresh = cell.value.is_none();
            if cell.fresh {
                intervals.note_empty(at, sub);
            }
            cell.dirty = changes.interval;
            cell.stored.change();
            changes.subs.push(KeyBytes::new(sub));
            intervals.work(changes.interval).pending += 1;
        }
        // Should the user's function panic, there is one too many and never one too few.
        let before = usize::from(cell.value.is_some());
        intervals.count_living(1, before);
        self.live += 1 - before;
        let result = change(&mut cell.value);
        let after = usize::from(cell.value.is_some());
        intervals.count_living(after, 1);
        self.live -= 1 - after;
        result
    }

    /// With a store behind, must be called before each change of an entry: what an interval drains may come in pieces, and is
    /// resolved by the order of these. Draining keeps that of clearing and what was put since, but an entry that changes again is
    /// drained by itself; so where a clearing waits, all that older intervals did is drained first, at once.
    fn settle_clearing(&mut self, recorder: &mut Recorder<'_>) {
        let open = recorder.intervals.open();
        let is_first = self.changes.back().is_none_or(|last| last.interval != open);
        let waits = !self.detached.is_empty() || self.changes.iter().any(|changes| changes.cleared);
        if is_first
            && waits
            && let Err(error) = self.drain_all(recorder.at, recorder.intervals)
        {
            recorder.intervals.fail(error);
        }
    }

    /// Drains what all intervals did, oldest first.
    pub(super) fn drain_all(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()> {
        let open = intervals.open();
        while !(self.detached.is_empty() && self.changes.is_empty()) {
            self.drain(at, open, usize::MAX, intervals)?;
        }
        Ok(())
    }

    fn clear(&mut self, mut recorder: Recorder<'_>) {
        let changes = Self::changes(&mut self.changes, self.live, &mut self.beyond, &mut recorder);
        let intervals = recorder.intervals;
        let leaves_tombstone = changes.stale || intervals.has_store();
        let work = intervals.work(changes.interval);
        let subs = std::mem::take(&mut changes.subs);
        work.pending -= subs.len();
        if leaves_tombstone && !changes.cleared {
            changes.cleared = true;
            work.pending += 1;
        }
        let entries = std::mem::take(&mut self.entries);
        intervals.count_items(0, entries.len());
        intervals.count_living(0, std::mem::take(&mut self.live));
        (self.partial, self.wiped, self.beyond) = (false, intervals.has_store(), None);
        let older: VecDeque<Changes> = self.changes.drain(..self.changes.len() - 1).collect();
        if older.is_empty() {
            intervals.bury(entries);
        } else {
            self.detached.push_back(Detached { entries, changes: older });
        }
        intervals.bury(subs);
    }
}

/// Drains about `budget` of the first of `changes`, whose cells are in `entries`, and removes it when it is done.
/// `attached` is 1 if the entries count among the state's, 0 if they are detached.
fn drain_changes<V: Data>(
    entries: &mut Entries<V>,
    changes: &mut VecDeque<Changes>,
    at: Place<'_>,
    budget: usize,
    into: &mut Intervals,
    attached: usize,
) -> Result<Progress> {
    let Some(first) = changes.front_mut() else { return Ok(Progress { spent: 0, finished: true }) };
    let mut spent = 0;
    if std::mem::take(&mut first.cleared) {
        let work = into.work(first.interval);
        work.drained.clear(at.group, at.key);
        work.pending -= 1;
        spent += 1;
    }
    while spent < budget {
        let Some(sub) = first.subs.pop() else {
            changes.pop_front();
            return Ok(Progress { spent, finished: true });
        };
        spent += 1;
        if let Some(cell) = entries.get_mut(&*sub)
            && cell.dirty == first.interval
        {
            cell.settle(at, &sub, into)?;
            if cell.value.is_none() && !into.has_store() {
                entries.remove(&*sub);
                into.count_items(0, attached);
            }
        }
    }
    Ok(Progress { spent, finished: false })
}

impl<V: Data> Slot for MapSlot<V> {
    type Value = V;
    const IS_ONE_ENTRY: bool = false;
    const ENTRY_BYTES: usize = Drained::of_value::<V>();

    fn is_vacant(&self) -> bool {
        self.entries.is_empty() && self.changes.is_empty() && self.detached.is_empty()
    }

    fn owes(&self, interval: Interval, _: bool) -> bool {
        let oldest = self.detached.front().map_or(&self.changes, |detached| &detached.changes);
        oldest.front().is_some_and(|changes| changes.interval == interval)
    }

    fn drain(&mut self, at: Place<'_>, _: Interval, budget: usize, into: &mut Intervals) -> Result<Progress> {
        let Some(oldest) = self.detached.front_mut() else {
            return drain_changes(&mut self.entries, &mut self.changes, at, budget, into, 1);
        };
        let progress = drain_changes(&mut oldest.entries, &mut oldest.changes, at, budget, into, 0)?;
        if oldest.changes.is_empty()
            && let Some(detached) = self.detached.pop_front()
        {
            into.bury(detached.entries);
        }
        Ok(progress)
    }

    fn restore(&mut self, entry: &Entry<'_>, into: &mut Intervals) -> Result<()> {
        let before = self.entries.len();
        match entry.kind {
            EntryKind::Put => {
                let cell = MapCell::clean(Some(Bincode::decode(entry.value)?));
                self.entries.insert(KeyBytes::new(entry.sub), cell);
            }
            EntryKind::Delete => drop(self.entries.remove(entry.sub)),
            EntryKind::Clear => self.entries.clear(),
        }
        into.count_living(self.entries.len(), self.live);
        self.live = self.entries.len();
        into.count_items(self.live, before);
        Ok(())
    }

    fn expire(
        &mut self,
        expired: Expired<V>,
        budget: usize,
        after: &mut Option<KeyBytes>,
        into: &mut Intervals,
    ) -> usize {
        let from = after.take().map_or(Bound::Unbounded, Bound::Excluded);
        let mut looked = 0;
        let mut gone = Vec::new();
        for (sub, cell) in self.entries.range((from, Bound::Unbounded)) {
            looked += 1;
            if cell.dirty == 0 && cell.value.as_ref().is_some_and(|value| expired.has(value)) {
                gone.push(sub.clone());
            }
            if looked >= budget {
                *after = Some(sub.clone());
                break;
            }
        }
        for sub in &gone {
            self.entries.remove(sub);
        }
        self.live -= gone.len();
        into.count_living(0, gone.len());
        into.count_items(0, gone.len());
        looked.max(1)
    }
}

impl<V: Send + 'static> Grave for Entries<V> {
    fn drop_some(&mut self, count: usize) -> usize {
        (0..count).take_while(|_| self.pop_first().is_some()).count()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

impl Grave for Pieces<KeyBytes> {
    fn drop_some(&mut self, count: usize) -> usize {
        (0..count).take_while(|_| self.pop().is_some()).count()
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// All cells of one map state. Map keys are ordered bytes.
pub struct MapTable<V: Data> {
    cells: Cells<MapSlot<V>>,
}

impl<V: Data> MapTable<V> {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        Self { cells: Cells::new(groups) }
    }

    /// Of values that have a deadline each.
    pub(crate) fn expiring(groups: KeyGroupRange, deadline: fn(&V) -> Timestamp) -> Self {
        Self { cells: Cells::new(groups).with_deadlines(deadline) }
    }

    /// The value under a map key.
    #[must_use]
    pub fn get(&self, key: KeyRef<'_>, sub: &[u8]) -> Option<&V> {
        self.cells.get(key)?.entries.get(sub)?.value.as_ref()
    }

    /// The entries of `key` in the order of their map keys' bytes.
    pub fn iter(&self, key: KeyRef<'_>) -> impl DoubleEndedIterator<Item = (&KeyBytes, &V)> {
        let entries = self.cells.get(key).map(|slot| slot.entries.iter());
        entries.into_iter().flatten().filter_map(|(sub, cell)| cell.value.as_ref().map(|value| (sub, value)))
    }

    /// All resident cells of `key`, empty ones included, in the order of their map keys' bytes or against it.
    pub(crate) fn visit(
        &self,
        key: KeyRef<'_>,
        order: Order,
    ) -> impl Iterator<Item = (&KeyBytes, Option<&V>)> {
        let (up, down) = match order {
            Order::Ascending => (true, false),
            Order::Descending => (false, true),
        };
        let slot = self.cells.get(key);
        let ascending = slot.filter(|_| up).into_iter().flat_map(|slot| slot.entries.iter());
        let descending = slot.filter(|_| down).into_iter().flat_map(|slot| slot.entries.iter().rev());
        ascending.chain(descending).map(|(sub, cell)| (sub, cell.value.as_ref()))
    }

    /// With a store behind: whether it may have entries of `key` that are not here.
    pub(crate) fn is_partial(&self, key: KeyRef<'_>) -> bool {
        self.cells.get(key).is_none_or(|slot| slot.partial)
    }

    /// How many entries `key` has.
    #[must_use]
    pub fn len(&self, key: KeyRef<'_>) -> usize {
        self.cells.get(key).map_or(0, |slot| slot.live)
    }

    /// Whether `key` has no entries.
    #[must_use]
    pub fn is_empty(&self, key: KeyRef<'_>) -> bool {
        self.len(key) == 0
    }

    /// Lets `change` put, replace or remove the value under a map key. Counts as a change whatever it does.
    pub fn update<R>(&mut self, key: KeyRef<'_>, sub: &[u8], change: impl FnOnce(&mut Option<V>) -> R) -> R {
        let (slot, recorder) = self.cells.change(key);
        slot.update(sub, recorder, change)
    }

    /// Removes the value under a map key and gives it back. No change if there is none.
    pub fn remove(&mut self, key: KeyRef<'_>, sub: &[u8]) -> Option<V> {
        let (slot, recorder) = self.cells.change_existing(key)?;
        slot.entries.get(sub)?.value.as_ref()?;
        slot.update(sub, recorder, Option::take)
    }

    /// Removes all entries of `key`, in constant time. No change if there are none.
    pub fn clear(&mut self, key: KeyRef<'_>) {
        if let Some((slot, recorder)) = self.cells.change_existing(key)
            && (slot.live > 0 || slot.beyond == Some(true))
        {
            slot.clear(recorder);
        }
    }
}

impl<V: Data> CellTable for MapTable<V> {
    type Slot = MapSlot<V>;

    fn inner(&self) -> &Cells<MapSlot<V>> {
        &self.cells
    }

    fn inner_mut(&mut self) -> &mut Cells<MapSlot<V>> {
        &mut self.cells
    }
}
