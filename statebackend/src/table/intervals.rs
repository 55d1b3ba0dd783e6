//! The time between two barriers: what was changed in it and has still to be drained, and what was.
//!
//! Those flipped and not yet taken stand in [`Intervals`], the open one behind them.

use std::collections::VecDeque;

use types::Error;

use super::{
    Drained,
    chunks::{Chunks, Refill},
    pieces::Spare,
    resident::Outgoing,
    slot::Place,
    sweep::Sweep,
};

/// The number of an interval between two barriers, from 1 on; 0 stands for "none".
pub(crate) type Interval = u32;

/// Something large that nobody needs any more, dropped in slices so that no step takes long.
pub(crate) trait Grave: Send {
    /// Drops up to `count` items; returns how many.
    fn drop_some(&mut self, count: usize) -> usize;
    /// How many items there are.
    fn size(&self) -> usize;
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
    /// Values, elements of lists, entries of maps with a value. Means nothing where a store stands behind.
    living: usize,
    graves: Vec<Box<dyn Grave>>,
    /// The memory that intervals are drained into.
    chunks: Chunks,
    /// What an entry takes, roughly: as in the last delta that was not small.
    entry_bytes: usize,
    /// The memory of dirty lists that are drained.
    pub(super) spare: Spare<u64>,
    /// The newest interval that is swept for all that lived at its end, or 0.
    newest_full: Interval,
    /// What the store behind the table has still to be told, if there is one. Then a cell stays when it is drained, also if it
    /// is vacant, until it leaves for the store; and what draining writes is resolved before it becomes a run.
    store: Option<Outgoing>,
}

/// Intervals that are under way at the most, unless the store fails: a flip then makes no room for its own.
const USUAL_QUEUE: usize = 4;
/// What is no larger is dropped at once.
const GRAVE_MIN: usize = 256;

/// The work of one interval.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) drained: Drained,
    /// Changes entered and neither drained nor dropped.
    pub(crate) pending: usize,
    /// Whether anything is or was to be drained.
    pub(super) listed: bool,
    /// How many changed cells the dirty lists take; where there are more, all cells are swept.
    list_limit: usize,
    /// The first key group that may have something of this interval to be drained.
    pub(super) next_group: usize,
    /// How the cells are swept, if they are.
    pub(super) sweep: Option<Sweep>,
    /// How many entries with a value are all that lived at its end, if their number can tell.
    whole: Option<usize>,
    /// List chunks written with a store behind.
    chunks: u32,
}

/// What a table knows of its cells when an interval ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Census {
    /// How many there are, those included that have no value and are not drained.
    pub(super) cells: usize,
    /// How many entries with a value are all that lives, if their number can tell.
    pub(super) whole: Option<usize>,
    /// Whether all that lives is to be drained, and not only what changed.
    pub(super) is_full: bool,
    /// How many changed cells the dirty lists of the next interval take.
    pub(super) list_limit: usize,
}

impl Work {
    fn new(chunks: &Chunks, list_limit: usize) -> Self {
        Self { drained: Drained::new(chunks.clone()), list_limit, ..Self::default() }
    }

    /// Whether a cell that has changed is to be entered into a dirty list.
    #[inline]
    pub(super) fn takes_lists(&self) -> bool {
        self.pending <= self.list_limit
    }

    /// Whether all that lived is drained, and not only what changed.
    pub(super) fn is_full(&self) -> bool {
        self.sweep.is_some_and(|sweep| sweep.is_full)
    }

    fn close(&mut self, census: Census) {
        self.whole = census.whole;
        if census.is_full || !self.takes_lists() {
            self.listed = true;
            self.sweep = Some(Sweep::new(census.is_full));
        }
        if census.is_full {
            self.pending = census.cells;
        }
    }

    fn into_drained(mut self) -> Drained {
        let is_whole = self.whole.is_some_and(|whole| whole as u64 == self.drained.values());
        self.drained.set_whole(is_whole);
        self.drained
    }

    /// The next number of a list chunk among all of the interval.
    pub(crate) fn next_chunk(&mut self) -> u32 {
        self.chunks += 1;
        self.chunks - 1
    }
}

impl Intervals {
    /// What an entry takes when it is drained, roughly.
    pub(super) fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Takes note of one that a store has given back: the mean follows the last few dozen.
    pub(super) fn note_entry_bytes(&mut self, bytes: usize) {
        self.entry_bytes = (self.entry_bytes * 15 + bytes) / 16;
    }

    /// Nothing yet of a state of which an entry takes about so many bytes.
    pub(super) fn new(entry_bytes: usize) -> Self {
        let chunks = Chunks::default();
        let mut queue = VecDeque::with_capacity(USUAL_QUEUE);
        queue.push_back(Work::new(&chunks, usize::MAX));
        Self {
            open: 1,
            queue,
            failure: None,
            epoch_base: 0,
            items: 0,
            living: 0,
            graves: Vec::new(),
            chunks,
            entry_bytes,
            spare: Spare::default(),
            newest_full: 0,
            store: None,
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

    /// The work of an interval that is not yet taken, and what the store has still to be told.
    #[inline]
    pub(crate) fn work_and_outgoing(&mut self, interval: Interval) -> (&mut Work, Option<&mut Outgoing>) {
        let back = (self.open - interval) as usize;
        let index = self.queue.len() - 1 - back;
        (&mut self.queue[index], self.store.as_mut())
    }

    /// From now on a store stands behind the table, in which the state's name has this rank.
    pub(super) fn use_store(&mut self, rank: u16) {
        self.store = Some(Outgoing::new(rank));
    }

    /// Whether a store stands behind the table.
    #[inline]
    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// What the store has still to be told.
    pub(crate) fn outgoing(&mut self) -> Option<&mut Outgoing> {
        self.store.as_mut()
    }

    /// With a store behind, notes in the open interval that a place is empty as it begins to change.
    #[cold]
    pub(crate) fn note_empty(&mut self, at: Place<'_>, sub: &[u8]) {
        if self.has_store() {
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

    /// What lives, unless a store stands behind. May be more than that, where a user's function has panicked.
    pub(super) fn living(&self) -> usize {
        self.living
    }

    /// Counts what came to life and went. Where a function of the user's decides, it is counted as living before that runs:
    /// should it panic, there is too much and never too little.
    #[inline]
    pub(super) fn count_living(&mut self, came: usize, went: usize) {
        debug_assert!(self.has_store() || self.living + came >= went, "more went than had come");
        self.living = (self.living + came).saturating_sub(went);
    }

    /// Drops `grave`, in slices if it is large.
    pub(crate) fn bury(&mut self, grave: impl Grave + 'static) {
        if grave.size() > GRAVE_MIN {
            self.graves.push(Box::new(grave));
        }
        // Keeps pace even where nobody drains: every burial drops more than it is allowed to leave.
        self.dig(2 * GRAVE_MIN);
    }

    pub(super) fn dig(&mut self, mut count: usize) {
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

    pub(super) fn flip(&mut self, next: Interval, census: Census) {
        let open = self.open;
        self.work(open).close(census);
        if census.is_full {
            self.newest_full = open;
        }
        self.open = next;
        self.chunks.drop_later(self.spare.turn());
        self.queue.push_back(Work::new(&self.chunks, census.list_limit));
    }

    /// The intervals after `written` that are swept for all that lived, oldest first.
    #[cold]
    pub(super) fn full_after(&mut self, written: Interval) -> impl Iterator<Item = &mut Work> {
        let oldest = self.open + 1 - self.queue.len() as Interval;
        let known = (written + 1).saturating_sub(oldest) as usize;
        self.queue.iter_mut().skip(known).filter(|work| work.is_full())
    }

    /// Whether all that was flipped is taken.
    pub(super) fn is_only_open(&self) -> bool {
        self.queue.len() == 1
    }

    /// The newest interval that is swept for all that lived, or 0.
    #[inline]
    pub(super) fn newest_full(&self) -> Interval {
        self.newest_full
    }

    /// Changes since the last barrier.
    pub(super) fn changed_in_open(&self) -> usize {
        self.get(self.open).map_or(0, |work| work.pending)
    }

    /// Whether anything was changed since the last barrier.
    pub(super) fn is_open_listed(&self) -> bool {
        self.get(self.open).is_some_and(|work| work.listed)
    }

    /// Whether nothing at all is to be drained of `interval`.
    pub(super) fn is_untouched(&self, interval: Interval) -> bool {
        self.get(interval).is_none_or(|work| !work.listed) && self.failure.is_none()
    }

    /// The error that came up where none could be returned.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Changes of flipped intervals that are not drained.
    pub(super) fn undrained(&self) -> usize {
        self.queue.iter().rev().skip(1).map(|work| work.pending).sum()
    }

    /// Changes of all intervals that are not drained.
    pub(super) fn changed(&self) -> usize {
        self.queue.iter().map(|work| work.pending).sum()
    }

    /// Memory to be made ready in the background.
    pub(super) fn refill(&self) -> Option<Refill> {
        let works = self.queue.iter();
        self.chunks.refill(works.map(|work| work.drained.estimate(work.pending, self.entry_bytes)).sum())
    }

    pub(super) fn take_oldest(&mut self) -> Drained {
        debug_assert!(self.queue.len() > 1, "the open interval is never taken");
        let drained = self.queue.pop_front().unwrap_or_default().into_drained();
        if let Some(each) = drained.entry_bytes() {
            self.entry_bytes = each;
        }
        drained
    }
}
