//! [`KeyedState`]: all tables of a subtask of an operator, flipped at one point and drained in slices.

use std::{any::Any, collections::VecDeque, sync::Arc};

use types::{CheckpointId, KeyGroup, KeyGroupRange, Result, Shape, Timestamp};

use super::{
    CachedTable, Drained, ListTable, MapTable, Need, StateTable, ValueTable,
    backing::Backing,
    chunks::Refill,
    intervals::Interval,
    timers::TimerTable,
    waiting::{MadeCells, Waiting},
};
use crate::{
    Data,
    declare::{Declared, EVENT_TIMERS, PROCESSING_TIMERS, StateSpec},
    expiry::Clocks,
    handle::{ListState, MapState, ValueState},
    key::{KeyRef, OwnedKey},
    run::entry::{Entry, EntryKind},
};

/// A checkpoint whose barrier has come and whose delta is not yet taken.
struct Flipped {
    checkpoint: CheckpointId,
    interval: Interval,
    /// The tables before this one are drained.
    next_table: usize,
}

/// All keyed state of one subtask of one operator, timers included.
///
/// # The life of a checkpoint
/// [`flip`](Self::flip) at its barrier; then [`drain`](Self::drain) in slices between batches; when all of it is
/// drained, [`take_sealed`](Self::take_sealed) gives out its [`Delta`], which [`write_run`](crate::write_run) turns
/// into a run away from the task. Several checkpoints may be on this way at once; they come out in order.
///
/// # With a store behind
/// The tables of declared states are then a cache of bounded size ([`with_store`](Self::with_store)): when there are too many,
/// cells leave for the store, and drain what they owe before. [`prepare`](Self::prepare)
/// makes the values of a batch's keys resident in one read; handles read singly what is still missing. Who works on a
/// table directly finds resident cells only. Timers stay in memory.
///
/// # After a restore
/// Without a store behind, the cells of values are made when their keys are first asked for, by [`prepare`](Self::prepare)
/// and by handles; some more with each batch, and by [`make_waiting`](Self::make_waiting). Who works on a table directly
/// prepares the keys before.
pub struct KeyedState {
    pub(super) declared: Declared,
    groups: KeyGroupRange,
    /// In the order of declaration.
    pub(super) tables: Vec<Box<dyn CachedTable>>,
    event_timers: TimerTable,
    processing_timers: TimerTable,
    pub(super) open: Interval,
    /// The number of the next barrier is at least this.
    next: CheckpointId,
    flipped: VecDeque<Flipped>,
    /// From how many bytes of changes on a delta may take all that lives.
    full_from: u64,
    /// The store behind the tables, if there is one.
    pub(super) backing: Option<Box<Backing>>,
    /// The restored entries whose cells are not made, if there are any.
    pub(super) waiting: Option<Box<Waiting>>,
    /// How many of their cells are made with each batch, if somebody said so.
    pub(super) made_per_batch: Option<usize>,
    pub(super) made: MadeCells,
    /// The bytes of a map key while it is looked up.
    pub(crate) scratch: Vec<u8>,
    /// There if a state has a time to live.
    pub(super) clocks: Option<Box<Clocks>>,
}

impl KeyedState {
    /// Empty state of the key groups `groups`. The first barrier will be that of `first` or a later checkpoint.
    #[must_use]
    pub fn new(declared: Declared, groups: KeyGroupRange, first: CheckpointId) -> Self {
        let tables = declared.states.iter().map(|state| (state.make)(groups)).collect();
        let expires = declared.states.iter().any(|state| state.spec.expiry.is_some());
        Self {
            clocks: expires.then(|| Box::new(Clocks::new(groups))),
            declared,
            groups,
            tables,
            event_timers: TimerTable::new(),
            processing_timers: TimerTable::new(),
            open: 1,
            next: first,
            flipped: VecDeque::new(),
            full_from: u64::MAX,
            backing: None,
            waiting: None,
            made_per_batch: None,
            made: MadeCells::default(),
            scratch: Vec::new(),
        }
    }

    /// From about so many bytes on, a delta of at least half of all that lives takes the other half, too, where it can:
    /// then it [is whole](Delta::is_whole), which spares merging older runs with it. Without this, deltas hold changes only.
    pub fn set_full_from(&mut self, bytes: u64) {
        self.full_from = bytes.max(1);
    }

    /// The key groups of this subtask.
    #[must_use]
    pub fn groups(&self) -> KeyGroupRange {
        self.groups
    }

    /// The states it was made of.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The table of a value state. The same for a whole batch: look it up once.
    ///
    /// # Panics
    /// If the handle was made by other declarations.
    #[inline]
    pub fn value_table<T: Data>(&mut self, handle: ValueState<T>) -> &mut ValueTable<T> {
        self.table(handle.index)
    }

    /// The table of a list state.
    ///
    /// # Panics
    /// If the handle was made by other declarations.
    #[inline]
    pub fn list_table<T: Data>(&mut self, handle: ListState<T>) -> &mut ListTable<T> {
        self.table(handle.index)
    }

    /// The table of a map state.
    ///
    /// # Panics
    /// If the handle was made by other declarations.
    #[inline]
    pub fn map_table<K, V: Data>(&mut self, handle: MapState<K, V>) -> &mut MapTable<V> {
        self.table(handle.index)
    }

    #[inline]
    fn table<T: StateTable>(&mut self, index: u16) -> &mut T {
        let table: &mut dyn Any = &mut *self.tables[usize::from(index)];
        table.downcast_mut().expect("a handle is used with the state that was declared with it")
    }

    /// Makes the values of `keys` resident, in one read of the store, and the cells of what waits after a restore. Nothing to do
    /// where all state is in memory.
    ///
    /// # Errors
    /// Those of the store; also `User` if a value cannot be encoded that must leave to make room. `Corrupt` naming file and place
    /// if a restored value cannot be decoded.
    pub fn prepare<'a>(&mut self, keys: impl Iterator<Item = KeyRef<'a>>) -> Result<()> {
        if self.clocks.is_some() {
            self.drop_expired();
        }
        if self.backing.is_some() {
            self.fetch_values(keys)
        } else if self.waiting.is_some() {
            self.make_asked(keys)
        } else {
            Ok(())
        }
    }

    /// Makes what an operation on a state needs resident, before it works on the table.
    #[inline]
    pub(crate) fn reach(&mut self, index: u16, key: KeyRef<'_>, need: Need<'_>) -> Result<()> {
        if self.backing.is_some() {
            self.fetch(index, key, need)
        } else if self.waiting.is_some() {
            self.make_one(index, key)
        } else {
            Ok(())
        }
    }

    /// The barrier of `checkpoint`: everything changed up to now belongs to it. Touches no cell.
    ///
    /// # Panics
    /// If the checkpoint is not newer than the one before.
    pub fn flip(&mut self, checkpoint: CheckpointId) {
        assert!(
            checkpoint >= self.next,
            "barrier {checkpoint} came where {} or a later one was due",
            self.next
        );
        self.next = checkpoint.next();
        self.count_residents();
        let is_full = self.takes_all();
        self.flipped.push_back(Flipped { checkpoint, interval: self.open, next_table: 0 });
        self.open += 1;
        for index in 0..self.table_count() {
            let open = self.open;
            self.table_at(index).flip(open, is_full);
        }
    }

    /// Whether the delta of an interval that ends now is to hold all that lives. To write a cell that did not change costs
    /// less than to merge it into older runs, and at half of them both are done as often. What waits would be left out.
    fn takes_all(&self) -> bool {
        if self.waiting.is_some() {
            return false;
        }
        let Some(living) = self.all_tables().map(StateTable::living).sum::<Option<usize>>() else {
            return false;
        };
        let changed = self.changed_since_barrier();
        (changed * Drained::LEAST) as u64 >= self.full_from && 2 * changed >= living
    }

    /// Drains about `cells` cells of the oldest checkpoints that still have any to be drained. Returns how many are left in
    /// all flipped checkpoints; 0 means that all of them can be taken.
    ///
    /// # Errors
    /// `User` or `InvalidJob` if a value cannot be encoded: the checkpoint cannot be made. Names the state. Those of the
    /// store, if it does not take what was drained: nothing is lost, and the next call tries again.
    pub fn drain(&mut self, cells: usize) -> Result<usize> {
        let (_, finished) = self.drain_all_flipped(cells)?;
        self.tell_store()?;
        let undrained = self.all_tables().map(StateTable::undrained).sum();
        Ok(usize::from(!finished).max(undrained))
    }

    /// Memory that draining will need: to be made ready away from the task. Ask from time to time, so that it is there
    /// before the barrier, and after each [`drain`](Self::drain).
    pub fn refills(&self) -> impl Iterator<Item = Refill> {
        self.all_tables().filter_map(StateTable::refill)
    }

    /// Drains flipped checkpoints, oldest first; returns what is left of the budget, and whether nothing else is.
    pub(super) fn drain_all_flipped(&mut self, cells: usize) -> Result<(usize, bool)> {
        let mut budget = cells;
        for index in 0..self.flipped.len() {
            budget = self.drain_flipped(index, budget)?;
            if self.flipped[index].next_table < self.table_count() {
                return Ok((budget, false));
            }
        }
        Ok((budget, true))
    }

    /// Whether [`drain`](Self::drain) has anything to do before all flipped checkpoints can be taken. It may have where
    /// no cell is left that was changed: what came and went within an interval, and what was drained early.
    #[must_use]
    pub fn is_undrained(&self) -> bool {
        let untouched =
            |index, interval| self.all_tables().nth(index).is_none_or(|it| it.is_untouched(interval));
        self.flipped.iter().any(|flipped| {
            (flipped.next_table..self.table_count()).any(|index| !untouched(index, flipped.interval))
        })
    }

    /// Drains a flipped checkpoint; returns what is left of the budget.
    fn drain_flipped(&mut self, index: usize, mut budget: usize) -> Result<usize> {
        let Flipped { interval, mut next_table, .. } = self.flipped[index];
        while next_table < self.table_count() {
            let table = self.table_at(next_table);
            if !table.is_untouched(interval) {
                if budget == 0 {
                    break;
                }
                let drained = table.drain(interval, budget);
                let progress = drained.map_err(|error| {
                    error.context(format!("state {:?}", self.name_of(TablePlace(next_table))))
                })?;
                budget = budget.saturating_sub(progress.spent);
                if !progress.finished {
                    continue;
                }
            }
            next_table += 1;
            self.flipped[index].next_table = next_table;
        }
        Ok(budget)
    }

    /// The delta of the oldest checkpoint, if all its cells are drained. Each flipped checkpoint comes out exactly once,
    /// in order, whether or not anything was changed.
    pub fn take_sealed(&mut self) -> Option<(CheckpointId, Delta)> {
        let &Flipped { checkpoint, interval, next_table } = self.flipped.front()?;
        if !(next_table..self.table_count()).all(|index| self.table_at(index).is_untouched(interval)) {
            return None;
        }
        self.flipped.pop_front();
        let segmented = self.backing.is_some();
        let mut is_whole = true;
        let mut states: Vec<StateDelta> = Vec::with_capacity(self.table_count());
        for index in 0..self.tables.len() {
            let spec = self.declared.states[index].spec.clone();
            let drained = self.tables[index].take_oldest();
            is_whole &= drained.is_whole();
            states.push(StateDelta { spec, drained, segmented });
        }
        for (name, timers) in
            [(EVENT_TIMERS, &mut self.event_timers), (PROCESSING_TIMERS, &mut self.processing_timers)]
        {
            let drained = timers.take_oldest();
            is_whole &= drained.is_whole();
            if drained.entries() > 0 {
                let spec = Arc::new(StateSpec::timers(name));
                states.push(StateDelta { spec, drained, segmented: false });
            }
        }
        states.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Some((checkpoint, Delta { key: self.declared.key.clone(), states, is_whole }))
    }

    /// Adds an event-time timer of `key`; nothing happens if it is there.
    pub fn register_event_timer(&mut self, key: KeyRef<'_>, at: Timestamp) {
        self.event_timers.register(key, at);
    }

    /// Removes an event-time timer of `key`; nothing happens if it is not there.
    pub fn delete_event_timer(&mut self, key: KeyRef<'_>, at: Timestamp) {
        self.event_timers.delete(key, at);
    }

    /// The time of the first event-time timer.
    #[must_use]
    pub fn next_event_timer(&self) -> Option<Timestamp> {
        self.event_timers.next()
    }

    /// Removes and returns the first event-time timer at or before `until`: by time, then key group, then key bytes.
    pub fn pop_event_timer(&mut self, until: Timestamp) -> Option<(Timestamp, OwnedKey)> {
        self.event_timers.pop(until)
    }

    /// Adds a processing-time timer of `key`; nothing happens if it is there.
    pub fn register_processing_timer(&mut self, key: KeyRef<'_>, at: Timestamp) {
        self.processing_timers.register(key, at);
    }

    /// Removes a processing-time timer of `key`; nothing happens if it is not there.
    pub fn delete_processing_timer(&mut self, key: KeyRef<'_>, at: Timestamp) {
        self.processing_timers.delete(key, at);
    }

    /// The time of the first processing-time timer.
    #[must_use]
    pub fn next_processing_timer(&self) -> Option<Timestamp> {
        self.processing_timers.next()
    }

    /// Removes and returns the first processing-time timer at or before `until`: by time, then key group, then key
    /// bytes.
    pub fn pop_processing_timer(&mut self, until: Timestamp) -> Option<(Timestamp, OwnedKey)> {
        self.processing_timers.pop(until)
    }

    /// Cells, timers and those that are not made yet included: for metrics.
    #[must_use]
    pub fn cell_count(&self) -> usize {
        self.all_tables().map(StateTable::cells).sum::<usize>() + self.waiting_cells()
    }

    /// Cells that are still to be drained, those changed since the last barrier included: for metrics.
    #[must_use]
    pub fn changed_cells(&self) -> usize {
        self.all_tables().map(StateTable::changed).sum()
    }

    /// Cells changed since the last barrier: for metrics.
    #[must_use]
    pub fn changed_since_barrier(&self) -> usize {
        self.all_tables().map(|table| table.changed() - table.undrained()).sum()
    }

    /// Bytes of memory, without what values hold on the heap, and with what waits after a restore: for metrics.
    #[must_use]
    pub fn approx_bytes(&self) -> usize {
        self.all_tables().map(StateTable::approx_bytes).sum::<usize>() + self.waiting_bytes()
    }

    /// How often any cell was looked up to be changed, or drained, since the beginning. Barriers do not move it.
    #[must_use]
    pub fn cells_touched(&self) -> u64 {
        self.all_tables().map(StateTable::touched).sum()
    }

    /// Puts an entry of a run into the state at `place`, over what older runs had put there.
    pub(crate) fn restore_entry(
        &mut self,
        place: TablePlace,
        hash: u64,
        group: KeyGroup,
        entry: &Entry<'_>,
    ) -> Result<()> {
        let key = KeyRef { hash, group, bytes: entry.key };
        if self.has_expired(place, group, entry)? {
            // It still hides what older runs have.
            let gone = Entry { kind: EntryKind::Delete, value: &[], ..*entry };
            return self.table_at(place.0).restore(key, &gone);
        }
        self.table_at(place.0).restore(key, entry)
    }

    /// Whether entries of the state at `place` may wait for their keys to be asked for.
    pub(crate) fn may_wait(&mut self, place: TablePlace) -> bool {
        self.table_at(place.0).may_wait()
    }

    #[cfg(test)]
    pub(crate) fn table_of(&mut self, place: TablePlace) -> &mut dyn StateTable {
        self.table_at(place.0)
    }

    /// Whether `value` of the state at `place` comes out of decoding and encoding as it went in.
    pub(crate) fn check_value(&mut self, place: TablePlace, value: &[u8]) -> Result<bool> {
        self.table_at(place.0).check_value(value)
    }

    /// The name of the state at `place`.
    pub(crate) fn name_of(&self, place: TablePlace) -> &str {
        match self.declared.states.get(place.0) {
            Some(state) => &state.spec.name,
            None if place.0 == self.tables.len() => EVENT_TIMERS,
            None => PROCESSING_TIMERS,
        }
    }

    /// Where the entries of the state `name` go.
    pub(crate) fn place_of(&self, name: &str) -> Option<TablePlace> {
        let timers = self.tables.len();
        let index = match name {
            EVENT_TIMERS => timers,
            PROCESSING_TIMERS => timers + 1,
            _ => usize::from(self.declared.sorted().find(|(_, spec)| spec.name == name)?.0),
        };
        Some(TablePlace(index))
    }

    /// An empty state of the same kind, that takes this one's place while it is worked on elsewhere.
    pub(crate) fn take(&mut self) -> Self {
        let stand_in = Self::new(Declared::nothing(), KeyGroupRange { start: 0, end: 0 }, self.next);
        std::mem::replace(self, stand_in)
    }

    fn table_count(&self) -> usize {
        self.tables.len() + 2
    }

    pub(super) fn table_at(&mut self, index: usize) -> &mut dyn StateTable {
        let declared = self.tables.len();
        match self.tables.get_mut(index) {
            Some(table) => table.as_mut() as &mut dyn StateTable,
            None if index == declared => &mut self.event_timers,
            None => &mut self.processing_timers,
        }
    }

    fn all_tables(&self) -> impl Iterator<Item = &dyn StateTable> {
        let timers: [&dyn StateTable; 2] = [&self.event_timers, &self.processing_timers];
        self.tables.iter().map(|table| table.as_ref() as &dyn StateTable).chain(timers)
    }
}

/// Where the table of a state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TablePlace(pub(super) usize);

/// The drained cells of one checkpoint: what changed since the one before, encoded and not yet sorted.
#[derive(Debug)]
pub struct Delta {
    pub(crate) key: Option<Arc<Shape>>,
    /// Sorted by name. All declared states, and timers if there are any.
    pub(crate) states: Vec<StateDelta>,
    is_whole: bool,
}

/// The drained cells of one state.
#[derive(Debug)]
pub(crate) struct StateDelta {
    pub(crate) spec: Arc<StateSpec>,
    pub(crate) drained: Drained,
    /// Whether it may hold several entries of one place, and notes, which must be resolved: a store stands behind.
    pub(crate) segmented: bool,
}

impl Delta {
    /// Whether nothing changed: no run is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells() == 0
    }

    /// Whether it holds everything that lived at its barrier, so that no older run is needed beside it.
    ///
    /// Each entry with a value is that of another cell that lived then, so as many of them as lived are all.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Bytes of its entries before compression, and of what helps to find them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.states.iter().flat_map(|state| state.drained.chunks()).map(|chunk| chunk.len() as u64).sum()
    }

    /// How many entries its run will have at most, tombstones included; exactly so many, where no store stands behind.
    #[must_use]
    pub fn cells(&self) -> u64 {
        self.states.iter().map(|state| state.drained.entries()).sum()
    }
}
