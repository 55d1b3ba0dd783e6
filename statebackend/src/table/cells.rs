//! What all kinds of state share: one hash map of cells per key group, and draining those that changed.
//!
//! Every change goes through [`Cells::change`], which finds or makes the cell and hands out a [`Recorder`]; the cell's
//! slot uses it to enter the cell into the dirty list of the open interval, once. Where more cells changed than a list is
//! worth, all of them are swept instead.

use hashbrown::{
    HashTable,
    hash_table::{AbsentEntry, OccupiedEntry},
};
use types::{KeyBytes, KeyGroup, KeyGroupRange, Result, Timestamp, key_hash};

use super::{
    Drained,
    dirty::{DirtyLists, Recorder},
    intervals::{Census, Interval, Intervals},
    slot::{Expired, Place, Progress, Slot},
    sweep,
};
use crate::{
    expiry::Hand,
    key::{KeyRef, ShortKey, index_hash},
    run::entry::Entry,
};

/// In which order the cells of a key group lie in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CellOrder {
    /// How many places there are: a power of two, or 0.
    places: usize,
}

impl CellOrder {
    /// In a table that has room for so many cells and had none.
    pub(crate) fn of(cells: usize) -> Self {
        // Seven eighths of a table are filled at the most.
        let places = if cells == 0 { 0 } else { (cells * 8 / 7 + 1).next_power_of_two() };
        Self { places }
    }

    /// In which of so many parts of the memory the cell of a key with this hash lies, or soon behind it. `parts` is a power
    /// of two.
    #[inline]
    pub(crate) fn part(self, hash: u64, parts: usize) -> usize {
        let width = (self.places / parts).max(1);
        self.place(hash) >> width.trailing_zeros()
    }

    /// The place of the cell of a key with this hash, if no other has taken it.
    #[inline]
    pub(crate) fn place(self, hash: u64) -> usize {
        index_hash(hash) as usize & self.places.saturating_sub(1)
    }
}

/// Aligned to a line of the processor's caches, so that a small cell never lies in two of them: fetching them from memory
/// is most of what an update costs.
#[repr(align(64))]
pub(crate) struct Cell<S> {
    pub(crate) key: KeyBytes,
    pub(crate) slot: S,
}

impl<S> Cell<S> {
    fn hash(&self) -> u64 {
        key_hash(&self.key)
    }
}

pub(super) struct Group<S> {
    pub(super) cells: HashTable<Cell<S>>,
    pub(super) dirty: DirtyLists,
    /// Whether cells changed their places since a sweep asked last.
    pub(super) moved: bool,
}

impl<S> Default for Group<S> {
    fn default() -> Self {
        Self { cells: HashTable::new(), dirty: DirtyLists::default(), moved: false }
    }
}

/// The cells of one state.
pub(crate) struct Cells<S: Slot> {
    /// The deadline of a value, where values have one.
    deadline: Option<fn(&S::Value) -> Timestamp>,
    pub(super) first_group: u16,
    pub(super) groups: Vec<Group<S>>,
    pub(super) intervals: Intervals,
    pub(super) touched: u64,
    warm: Warm,
}

/// How [`Cells::warm`] decides.
#[derive(Default)]
struct Warm {
    calls: u32,
    is_large: bool,
    /// What was read, so that reading it is not left out as useless.
    read: u32,
}

/// Cells that take less than this stay in the processor's caches by themselves.
const WARM_BYTES: usize = 512 << 10;
/// How many cells are fetched ahead of draining them.
const DRAIN_AHEAD: usize = 64;

impl Warm {
    /// Whether the size is to be judged again.
    fn is_due(&mut self) -> bool {
        self.calls = self.calls.wrapping_add(1);
        self.calls % 64 == 1
    }
}

/// Reads something of the cell with this hash. The first candidate is nearly always the right one, and comparing keys
/// would make the next look-up wait for this one.
#[inline(always)]
fn peek<S>(cells: &HashTable<Cell<S>>, hash: u64) -> u32 {
    cells.find(index_hash(hash), |_| true).map_or(0, |cell| cell.key.len() as u32)
}

type Found<'a, S> = Result<OccupiedEntry<'a, Cell<S>>, AbsentEntry<'a, Cell<S>>>;

/// The cell of a key.
#[inline(always)]
pub(super) fn find<'a, S: Slot>(cells: &'a mut HashTable<Cell<S>>, key: KeyRef<'_>) -> Found<'a, S> {
    match ShortKey::new(key.bytes) {
        Some(short) => cells.find_entry(index_hash(key.hash), |cell| short.is(&cell.key)),
        None => find_long(cells, key),
    }
}

#[inline(never)]
fn find_long<'a, S: Slot>(cells: &'a mut HashTable<Cell<S>>, key: KeyRef<'_>) -> Found<'a, S> {
    cells.find_entry(index_hash(key.hash), |cell| cell.key.is(key.bytes))
}

/// Makes the cell of a key that has none, and says whether others `moved` for it. Out of line, so that looking up an
/// existing one stays small.
#[cold]
#[inline(never)]
pub(super) fn insert<'a, S: Slot>(
    cells: &'a mut HashTable<Cell<S>>,
    key: KeyRef<'_>,
    moved: &mut bool,
) -> &'a mut Cell<S> {
    let cell = Cell { key: KeyBytes::new(key.bytes), slot: S::default() };
    if cells.len() == cells.capacity() {
        // Makes room for many: so this is rare, and the insertion below moves none.
        cells.reserve(1, |cell| index_hash(cell.hash()));
        *moved = true;
    }
    cells.insert_unique(index_hash(key.hash), cell, |cell| index_hash(cell.hash())).into_mut()
}

impl<S: Slot> Cells<S> {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        Self {
            deadline: None,
            first_group: groups.start,
            groups: groups.iter().map(|_| Group::default()).collect(),
            intervals: Intervals::new(S::ENTRY_BYTES),
            touched: 0,
            warm: Warm::default(),
        }
    }

    /// Its values have a deadline each.
    pub(super) fn with_deadlines(self, deadline: fn(&S::Value) -> Timestamp) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// Where in `groups` a key group stands.
    ///
    /// # Panics
    /// If this subtask does not own the group: a record went to the wrong subtask.
    #[inline]
    pub(super) fn index(&self, group: KeyGroup) -> usize {
        usize::from(group.0.wrapping_sub(self.first_group))
    }

    /// The slot of `key`, if there is a cell.
    #[inline]
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Option<&S> {
        let group = &self.groups[self.index(key.group)];
        let hash = index_hash(key.hash);
        let cell = match ShortKey::new(key.bytes) {
            Some(short) => group.cells.find(hash, |cell| short.is(&cell.key)),
            None => group.cells.find(hash, |cell| cell.key.is(key.bytes)),
        };
        cell.map(|cell| &cell.slot)
    }

    /// The slot of `key`, made if there is none, and what it needs to record a change.
    #[inline(always)]
    pub(crate) fn change<'a>(&'a mut self, key: KeyRef<'a>) -> (&'a mut S, Recorder<'a>) {
        let index = self.index(key.group);
        let Group { cells, dirty, moved } = &mut self.groups[index];
        self.touched += 1;
        let cell = match find(cells, key) {
            Ok(found) => found.into_mut(),
            Err(absent) => insert(absent.into_table(), key, moved),
        };
        let at = Place { group: key.group, key: key.bytes };
        (&mut cell.slot, Recorder { at, hash: key.hash, dirty, intervals: &mut self.intervals })
    }

    /// The slot of `key`, if there is a cell, and what it needs to record a change.
    #[inline]
    pub(crate) fn change_existing<'a>(&'a mut self, key: KeyRef<'a>) -> Option<(&'a mut S, Recorder<'a>)> {
        let index = self.index(key.group);
        let Group { cells, dirty, .. } = &mut self.groups[index];
        self.touched += 1;
        let cell = find(cells, key).ok()?.into_mut();
        let at = Place { group: key.group, key: key.bytes };
        Some((&mut cell.slot, Recorder { at, hash: key.hash, dirty, intervals: &mut self.intervals }))
    }

    /// Reads the cells at these places (hash and key group) without using them, so that the processor fetches many of
    /// them from memory at the same time; looking them up one by one waits for nearly each. Only worth its while where
    /// the cells lie outside of the nearest caches, which is judged from time to time.
    #[inline]
    pub(crate) fn warm(&mut self, places: impl Iterator<Item = (u64, KeyGroup)>) {
        if self.warm.is_due() {
            self.warm.is_large = self.approx_bytes() > WARM_BYTES;
        }
        if self.warm.is_large {
            let read = places.map(|(hash, group)| peek(&self.groups[self.index(group)].cells, hash));
            self.warm.read = read.fold(self.warm.read, u32::wrapping_add);
        }
    }

    pub(crate) fn flip(&mut self, next: Interval, is_full: bool) {
        let (mut cells, mut buckets) = (0, 0);
        for group in &self.groups {
            cells += group.cells.len();
            buckets += group.cells.num_buckets();
        }
        let can_sweep = S::IS_ONE_ENTRY && !self.intervals.has_store();
        let whole = match cells {
            // With a store behind, more lives than has a cell. What lives of lists and maps is more than a count of cells.
            _ if can_sweep => Some(self.intervals.living()),
            0 if !self.intervals.has_store() => Some(0),
            _ => None,
        };
        let changed = self.intervals.changed_in_open();
        let list_limit = if can_sweep { sweep::list_limit(cells, buckets, changed) } else { usize::MAX };
        self.intervals.flip(next, Census { cells, whole, is_full: is_full && can_sweep, list_limit });
    }

    /// How many entries with a value are all that lives. The same whatever is drained already.
    pub(crate) fn living(&self) -> Option<usize> {
        match self.intervals.living() {
            _ if self.intervals.has_store() => None,
            living if S::IS_ONE_ENTRY => Some(living),
            0 if !self.intervals.is_open_listed() => Some(0),
            _ => None,
        }
    }

    pub(crate) fn is_untouched(&self, interval: Interval) -> bool {
        self.intervals.is_untouched(interval)
    }

    pub(crate) fn take_oldest(&mut self) -> Drained {
        self.intervals.take_oldest()
    }

    /// Drains about `budget` cells of `interval`.
    pub(crate) fn drain(&mut self, interval: Interval, budget: usize) -> Result<Progress> {
        if let Some(error) = self.intervals.take_failure() {
            return Err(error);
        }
        self.intervals.dig(budget);
        if self.is_untouched(interval) {
            return Ok(Progress { spent: 0, finished: true });
        }
        match self.intervals.work(interval).sweep {
            Some(sweep) => self.sweep(sweep, interval, budget),
            None => self.drain_listed(interval, budget),
        }
    }

    /// Walks over the dirty lists of `interval`, key group by key group: the cells of one group lie close together.
    fn drain_listed(&mut self, interval: Interval, budget: usize) -> Result<Progress> {
        let (mut spent, mut ahead) = (0, 0);
        while spent < budget {
            let next = self.intervals.work(interval).next_group;
            let Some(group) = self.groups.get_mut(next) else {
                return Ok(Progress { spent, finished: true });
            };
            if ahead == 0 {
                ahead = DRAIN_AHEAD.min(budget - spent);
                let hashes = group.dirty.upcoming(interval, ahead).iter();
                let read = hashes.map(|&hash| peek(&group.cells, hash));
                self.warm.read = read.fold(self.warm.read, u32::wrapping_add);
            }
            ahead -= 1;
            let Some(hash) = group.dirty.pop(interval, &mut self.intervals.spare) else {
                self.intervals.work(interval).next_group += 1;
                ahead = 0;
                continue;
            };
            let key_group = KeyGroup(self.first_group + next as u16);
            spent += group.drain_one(key_group, hash, interval, budget - spent, &mut self.intervals)?;
            self.touched += 1;
        }
        Ok(Progress { spent, finished: false })
    }

    pub(crate) fn restore(&mut self, key: KeyRef<'_>, entry: &Entry<'_>) -> Result<()> {
        let (slot, recorder) = self.change(key);
        slot.restore(entry, recorder.intervals)?;
        if slot.is_vacant() {
            let index = self.index(key.group);
            let found = find(&mut self.groups[index].cells, key);
            if let Ok(cell) = found {
                cell.remove();
            }
        }
        Ok(())
    }

    /// Makes room for so many more cells of a key group.
    pub(crate) fn make_room(&mut self, group: KeyGroup, count: usize) {
        let index = self.index(group);
        let Group { cells, moved, .. } = &mut self.groups[index];
        // Where there is room but for places that had cells, they are put in order without growing.
        *moved |= cells.capacity() - cells.len() < count;
        cells.reserve(count, |cell| index_hash(cell.hash()));
    }

    /// Lets the hand go on through the `group`-th key group while there is `budget`, and drops what has expired. Returns whether it
    /// has come to the end of the group.
    pub(crate) fn expire(
        &mut self,
        group: usize,
        hand: &mut Hand,
        until: Timestamp,
        budget: &mut usize,
    ) -> bool {
        let Some(deadline) = self.deadline else { return true };
        let cells = &mut self.groups[group].cells;
        while *budget > 0 {
            if hand.bucket >= cells.num_buckets() {
                return true;
            }
            let Some(cell) = cells.get_bucket_mut(hand.bucket) else {
                // Empty places are next to nothing, and so many that they are not counted one by one. A map that was looked
                // at in part may have gone from here.
                (hand.bucket, hand.sub) = (hand.bucket + 1, None);
                continue;
            };
            let expired = Expired { deadline, until };
            let looked = cell.slot.expire(expired, *budget, &mut hand.sub, &mut self.intervals);
            *budget = budget.saturating_sub(looked);
            if hand.sub.is_some() {
                continue;
            }
            if cell.slot.is_vacant()
                && let Ok(found) = cells.get_bucket_entry(hand.bucket)
            {
                found.remove();
            }
            hand.bucket += 1;
        }
        false
    }

    /// The hashes of all cells, in the order in which they lie.
    #[cfg(test)]
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> {
        let places = |cells: &'_ HashTable<Cell<S>>| 0..cells.num_buckets();
        let of = move |cells: &'_ HashTable<Cell<S>>| {
            places(cells).filter_map(|place| cells.get_bucket(place).map(Cell::hash)).collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(move |group| of(&group.cells))
    }

    pub(crate) fn cells(&self) -> usize {
        self.groups.iter().map(|group| group.cells.len()).sum()
    }

    /// Elements of lists, entries of maps.
    pub(crate) fn items(&self) -> usize {
        self.intervals.items()
    }

    pub(crate) fn undrained(&self) -> usize {
        self.intervals.undrained()
    }

    pub(crate) fn changed(&self) -> usize {
        self.intervals.changed()
    }

    pub(crate) fn approx_bytes(&self) -> usize {
        self.groups.iter().map(|group| group.cells.allocation_size()).sum()
    }

    pub(crate) fn touched(&self) -> u64 {
        self.touched
    }
}

impl<S: Slot> Group<S> {
    /// Drains the cell of `hash` that owes something to `interval`. Two cells of one hash are both in the list, so it
    /// does not matter which of them is found first. A cell that was drained early is not found: that is one cell, too.
    #[inline]
    fn drain_one(
        &mut self,
        group: KeyGroup,
        hash: u64,
        interval: Interval,
        budget: usize,
        intervals: &mut Intervals,
    ) -> Result<usize> {
        let owes = |cell: &Cell<S>| cell.slot.owes(interval, false) && cell.hash() == hash;
        let Ok(mut found) = self.cells.find_entry(index_hash(hash), owes) else { return Ok(1) };
        let cell = found.get_mut();
        let at = Place { group, key: &cell.key };
        let progress = cell.slot.drain(at, interval, budget, intervals)?;
        if !progress.finished {
            self.dirty.push_back(interval, hash);
        } else if cell.slot.is_vacant() && !intervals.has_store() {
            found.remove();
        }
        Ok(progress.spent.max(1))
    }
}
