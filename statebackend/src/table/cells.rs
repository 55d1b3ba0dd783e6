//! What all kinds of state share: one hash map of cells per key group, lists of the changed ones, and draining them.
//!
//! Every change goes through [`Cells::change`], which finds or makes the cell and hands out a [`Recorder`]; the cell's
//! slot uses it to enter the cell into the dirty list of the open interval, once. An interval is the time between two
//! barriers, numbered from 1; those flipped and not yet taken lie in [`Intervals`].

use std::{any::Any, collections::VecDeque};

use hashbrown::{
    HashTable,
    hash_table::{AbsentEntry, OccupiedEntry},
};
use types::{Error, KeyBytes, KeyGroup, KeyGroupRange, Result, key_hash};

use super::{
    Drained,
    chunks::{Chunks, Refill},
    pieces::{Pieces, Spare},
};
use crate::{
    key::{KeyRef, ShortKey, index_hash},
    run::entry::Entry,
};

/// The number of an interval between two barriers, from 1 on; 0 stands for "none".
pub(crate) type Interval = u32;

/// How much draining has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Cells looked at.
    pub(crate) spent: usize,
    /// Whether nothing of the interval is left.
    pub(crate) finished: bool,
}

/// The table of one declared state, whatever its kind and types are.
pub(crate) trait StateTable: Any + Send {
    /// Closes the open interval and opens `next`. Touches no cell.
    fn flip(&mut self, next: Interval);
    /// Drains about `budget` changed cells of `interval`, all of whose elders are drained.
    fn drain(&mut self, interval: Interval, budget: usize) -> Result<Progress>;
    /// Whether nothing at all was changed in `interval`.
    fn is_untouched(&self, interval: Interval) -> bool;
    /// Gives away what was drained of the oldest interval.
    fn take_oldest(&mut self) -> Drained;
    /// Puts an entry of a run into the table, over what older runs had put there.
    fn restore(&mut self, key: KeyRef<'_>, entry: &Entry<'_>) -> Result<()>;
    /// Whether `value` comes out of decoding and encoding as it went in.
    fn check_value(&self, value: &[u8]) -> Result<bool>;
    /// Cells, tombstones not yet drained included.
    fn cells(&self) -> usize;
    /// How many entries with a value an interval that ends now must drain for them to be all that lives: never less.
    /// `None` where their number cannot tell.
    fn whole(&self) -> Option<usize>;
    /// Changed cells of flipped intervals that are not yet drained.
    fn undrained(&self) -> usize;
    /// Changed cells not yet drained, the open interval's included.
    fn changed(&self) -> usize;
    /// Bytes of memory, roughly.
    fn approx_bytes(&self) -> usize;
    /// How often a cell was looked up or walked over.
    fn touched(&self) -> u64;
    /// Memory to be made ready in the background, before draining needs it.
    fn refill(&self) -> Option<Refill>;
}

/// What a cell of one kind of state holds besides its key.
pub(crate) trait Slot: Default + Send + 'static {
    /// Whether the slot says nothing more than a missing one would.
    fn is_vacant(&self) -> bool;
    /// Whether it has changes of `interval` that are not yet drained.
    fn owes(&self, interval: Interval) -> bool;
    /// Drains about `budget` of the changes of `interval`.
    fn drain(
        &mut self,
        at: Place<'_>,
        interval: Interval,
        budget: usize,
        into: &mut Intervals,
    ) -> Result<Progress>;
    /// Puts an entry of a run into the slot.
    fn restore(&mut self, entry: &Entry<'_>, into: &mut Intervals) -> Result<()>;
}

/// Something large that nobody needs any more, dropped in slices so that no step takes long.
pub(crate) trait Grave: Send {
    /// Drops up to `count` items; returns how many.
    fn drop_some(&mut self, count: usize) -> usize;
    /// How many items there are.
    fn size(&self) -> usize;
}

/// The key group and key of a cell, as entries are written under it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) group: KeyGroup,
    pub(crate) key: &'a [u8],
}

/// The intervals that are not yet taken; the last one is open. With it, what else the cells of a state have in common.
pub(crate) struct Intervals {
    open: Interval,
    queue: VecDeque<Work>,
    /// The first error of a cell that had to be drained in the middle of a change.
    failure: Option<Error>,
    /// What an interval's number is counted from in the numbers of list chunks.
    epoch_base: u64,
    /// Elements of lists, entries of maps.
    items: usize,
    graves: Vec<Box<dyn Grave>>,
    /// The memory that intervals are drained into.
    chunks: Chunks,
    /// The memory of dirty lists that are drained.
    spare: Spare<u64>,
    /// Whether a store stands behind the table. Then a cell stays when it is drained, also if it is vacant, until what
    /// was drained is in the store; and what draining writes is resolved before it becomes a run.
    pub(super) has_store: bool,
}

/// What is no larger is dropped at once.
const GRAVE_MIN: usize = 256;

/// The work of one interval.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) drained: Drained,
    /// Changes entered and neither drained nor dropped.
    pub(crate) pending: usize,
    /// Whether any cell was entered into a dirty list.
    listed: bool,
    /// The first key group whose dirty list may hold something of this interval.
    pub(super) next_group: usize,
    /// List chunks written with a store behind.
    chunks: u32,
}

impl Work {
    fn new(chunks: &Chunks) -> Self {
        Self { drained: Drained::new(chunks.clone()), ..Self::default() }
    }

    /// The next number of a list chunk among all of the interval.
    pub(crate) fn next_chunk(&mut self) -> u32 {
        self.chunks += 1;
        self.chunks - 1
    }
}

impl Intervals {
    fn new() -> Self {
        let chunks = Chunks::default();
        Self {
            open: 1,
            queue: VecDeque::from([Work::new(&chunks)]),
            failure: None,
            epoch_base: 0,
            items: 0,
            graves: Vec::new(),
            chunks,
            spare: Spare::default(),
            has_store: false,
        }
    }

    /// The open interval.
    #[inline]
    pub(crate) fn open(&self) -> Interval {
        self.open
    }

    /// The work of an interval that is not yet taken.
    #[inline]
    pub(crate) fn work(&mut self, interval: Interval) -> &mut Work {
        let back = (self.open - interval) as usize;
        let index = self.queue.len() - 1 - back;
        &mut self.queue[index]
    }

    fn get(&self, interval: Interval) -> Option<&Work> {
        let back = (self.open - interval) as usize;
        self.queue.get(self.queue.len().checked_sub(back + 1)?)
    }

    /// The work of all intervals, oldest first.
    pub(crate) fn all_work(&mut self) -> impl Iterator<Item = &mut Work> {
        self.queue.iter_mut()
    }

    /// With a store behind, notes in the open interval that a place is empty as it begins to change.
    #[cold]
    pub(crate) fn note_empty(&mut self, at: Place<'_>, sub: &[u8]) {
        if self.has_store {
            let open = self.open;
            self.work(open).drained.note_empty(at.group, at.key, sub);
        }
    }

    /// Elements of lists, entries of maps.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Keeps an error that came up where none can be returned, for the next [`StateTable::drain`].
    pub(crate) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// The number of `interval` that goes into the numbers of list chunks: greater than those of all older chunks.
    pub(crate) fn epoch(&self, interval: Interval) -> u64 {
        self.epoch_base + u64::from(interval)
    }

    /// Numbers all intervals so that they come after `epoch`.
    pub(crate) fn begin_after(&mut self, epoch: u64) {
        self.epoch_base = self.epoch_base.max(epoch);
    }

    /// Counts elements or entries that came and went.
    #[inline]
    pub(crate) fn count_items(&mut self, came: usize, went: usize) {
        self.items = (self.items + came).saturating_sub(went);
    }

    /// Drops `grave`, in slices if it is large.
    pub(crate) fn bury(&mut self, grave: impl Grave + 'static) {
        if grave.size() > GRAVE_MIN {
            self.graves.push(Box::new(grave));
        }
        // Keeps pace even where nobody drains: every burial drops more than it is allowed to leave.
        self.dig(2 * GRAVE_MIN);
    }

    fn dig(&mut self, mut count: usize) {
        while count > 0
            && let Some(grave) = self.graves.last_mut()
        {
            let dropped = grave.drop_some(count);
            if dropped < count {
                self.graves.pop();
            }
            count -= dropped;
        }
    }

    fn flip(&mut self, next: Interval) {
        let open = self.open;
        // Cells drained early may have moved it past lists that were filled again.
        self.work(open).next_group = 0;
        self.open = next;
        self.spare.turn();
        self.queue.push_back(Work::new(&self.chunks));
    }

    /// Memory to be made ready in the background.
    pub(super) fn refill(&self) -> Option<Refill> {
        self.chunks.refill(self.queue.iter().map(|work| work.drained.estimate(work.pending)).sum())
    }

    fn take_oldest(&mut self) -> Drained {
        debug_assert!(self.queue.len() > 1, "the open interval is never taken");
        self.queue.pop_front().unwrap_or_default().drained
    }
}

/// The hashes of changed cells of one key group, by interval, oldest first. An interval without any has no list.
#[derive(Default)]
pub(crate) struct DirtyLists(VecDeque<(Interval, Pieces<u64>)>);

impl DirtyLists {
    #[inline]
    fn push(&mut self, interval: Interval, hash: u64, spare: &mut Spare<u64>) {
        match self.0.back_mut() {
            Some((last, hashes)) if *last == interval => hashes.push_with(hash, spare),
            _ => {
                let mut hashes = Pieces::default();
                hashes.push_with(hash, spare);
                self.0.push_back((interval, hashes));
            }
        }
    }

    #[inline]
    fn pop(&mut self, interval: Interval, spare: &mut Spare<u64>) -> Option<u64> {
        let (first, hashes) = self.0.front_mut()?;
        if *first != interval {
            return None;
        }
        let hash = hashes.pop_with(spare);
        if hash.is_none() {
            self.0.pop_front();
        }
        hash
    }

    /// Some of the hashes that `pop` gives next, `count` at most, in no particular order.
    fn upcoming(&self, interval: Interval, count: usize) -> &[u64] {
        match self.0.front() {
            Some((first, hashes)) if *first == interval => hashes.top(count),
            _ => &[],
        }
    }

    /// Gives back a hash that was popped just now.
    fn push_back(&mut self, interval: Interval, hash: u64) {
        match self.0.front_mut() {
            Some((first, hashes)) if *first == interval => hashes.push(hash),
            _ => self.0.push_front((interval, Pieces::from_one(hash))),
        }
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
    dirty: DirtyLists,
}

impl<S> Default for Group<S> {
    fn default() -> Self {
        Self { cells: HashTable::new(), dirty: DirtyLists::default() }
    }
}

/// The cells of one state.
pub(crate) struct Cells<S> {
    first_group: u16,
    pub(super) groups: Vec<Group<S>>,
    pub(super) intervals: Intervals,
    touched: u64,
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

/// Lets a slot enter its cell into the dirty list, and drain what must be drained before it changes.
pub(crate) struct Recorder<'a> {
    pub(crate) at: Place<'a>,
    hash: u64,
    dirty: &'a mut DirtyLists,
    pub(crate) intervals: &'a mut Intervals,
}

impl Recorder<'_> {
    /// Enters the cell into the open interval's dirty list. At most once per cell and interval.
    #[inline]
    pub(crate) fn list(&mut self) {
        let open = self.intervals.open;
        self.dirty.push(open, self.hash, &mut self.intervals.spare);
        self.intervals.work(open).listed = true;
    }
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

/// Makes the cell of a key that has none. Out of line, so that looking up an existing one stays small.
#[cold]
#[inline(never)]
pub(super) fn insert<'a, S: Slot>(cells: &'a mut HashTable<Cell<S>>, key: KeyRef<'_>) -> &'a mut Cell<S> {
    let cell = Cell { key: KeyBytes::new(key.bytes), slot: S::default() };
    cells.insert_unique(index_hash(key.hash), cell, |cell| index_hash(cell.hash())).into_mut()
}

impl<S: Slot> Cells<S> {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        Self {
            first_group: groups.start,
            groups: groups.iter().map(|_| Group::default()).collect(),
            intervals: Intervals::new(),
            touched: 0,
            warm: Warm::default(),
        }
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
        let Group { cells, dirty } = &mut self.groups[index];
        self.touched += 1;
        let cell = match find(cells, key) {
            Ok(found) => found.into_mut(),
            Err(absent) => insert(absent.into_table(), key),
        };
        let at = Place { group: key.group, key: key.bytes };
        (&mut cell.slot, Recorder { at, hash: key.hash, dirty, intervals: &mut self.intervals })
    }

    /// The slot of `key`, if there is a cell, and what it needs to record a change.
    #[inline]
    pub(crate) fn change_existing<'a>(&'a mut self, key: KeyRef<'a>) -> Option<(&'a mut S, Recorder<'a>)> {
        let index = self.index(key.group);
        let Group { cells, dirty } = &mut self.groups[index];
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

    pub(crate) fn flip(&mut self, next: Interval) {
        self.intervals.flip(next);
    }

    pub(crate) fn is_untouched(&self, interval: Interval) -> bool {
        self.intervals.get(interval).is_none_or(|work| !work.listed) && self.intervals.failure.is_none()
    }

    pub(crate) fn take_oldest(&mut self) -> Drained {
        self.intervals.take_oldest()
    }

    /// Walks over the dirty lists of `interval`, key group by key group: the cells of one group lie close together.
    pub(crate) fn drain(&mut self, interval: Interval, budget: usize) -> Result<Progress> {
        if let Some(error) = self.intervals.failure.take() {
            return Err(error);
        }
        self.intervals.dig(budget);
        if self.is_untouched(interval) {
            return Ok(Progress { spent: 0, finished: true });
        }
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

    pub(crate) fn cells(&self) -> usize {
        self.groups.iter().map(|group| group.cells.len()).sum()
    }

    /// Elements of lists, entries of maps.
    pub(crate) fn items(&self) -> usize {
        self.intervals.items
    }

    pub(crate) fn undrained(&self) -> usize {
        let flipped = self.intervals.queue.len() - 1;
        self.intervals.queue.iter().take(flipped).map(|work| work.pending).sum()
    }

    pub(crate) fn changed(&self) -> usize {
        self.intervals.queue.iter().map(|work| work.pending).sum()
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
        let owes = |cell: &Cell<S>| cell.slot.owes(interval) && cell.hash() == hash;
        let Ok(mut found) = self.cells.find_entry(index_hash(hash), owes) else { return Ok(1) };
        let cell = found.get_mut();
        let at = Place { group, key: &cell.key };
        let progress = cell.slot.drain(at, interval, budget, intervals)?;
        if !progress.finished {
            self.dirty.push_back(interval, hash);
        } else if cell.slot.is_vacant() && !intervals.has_store {
            found.remove();
        }
        Ok(progress.spent.max(1))
    }
}
