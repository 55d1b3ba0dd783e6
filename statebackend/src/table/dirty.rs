//! Which cells of a key group changed in which interval, and entering them there.

use std::collections::VecDeque;

use super::{
    intervals::{Interval, Intervals},
    pieces::{Pieces, Spare},
    slot::Place,
};

/// The hashes of changed cells of one key group, by interval, oldest first. An interval without any has no list.
#[derive(Default)]
pub(crate) struct DirtyLists(VecDeque<(Interval, Pieces<u64>)>);

impl DirtyLists {
    #[inline]
    pub(super) fn push(&mut self, interval: Interval, hash: u64, spare: &mut Spare<u64>) {
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
    pub(super) fn pop(&mut self, interval: Interval, spare: &mut Spare<u64>) -> Option<u64> {
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
    pub(super) fn upcoming(&self, interval: Interval, count: usize) -> &[u64] {
        match self.0.front() {
            Some((first, hashes)) if *first == interval => hashes.top(count),
            _ => &[],
        }
    }

    /// Forgets what is left of an interval, which is the oldest that has any.
    pub(super) fn forget(&mut self, interval: Interval, spare: &mut Spare<u64>) {
        if self.0.front().is_some_and(|(first, _)| *first == interval)
            && let Some((_, hashes)) = self.0.pop_front()
        {
            hashes.give_back(spare);
        }
    }

    /// Gives back a hash that was popped just now.
    pub(super) fn push_back(&mut self, interval: Interval, hash: u64) {
        match self.0.front_mut() {
            Some((first, hashes)) if *first == interval => hashes.push(hash),
            _ => self.0.push_front((interval, Pieces::from_one(hash))),
        }
    }
}

/// Lets a slot enter its cell into the dirty list, and drain what must be drained before it changes.
pub(crate) struct Recorder<'a> {
    pub(crate) at: Place<'a>,
    pub(super) hash: u64,
    pub(super) dirty: &'a mut DirtyLists,
    pub(crate) intervals: &'a mut Intervals,
}

impl Recorder<'_> {
    /// Enters the cell into the open interval's dirty list, where one is kept. At most once per cell and interval; a cell
    /// that is swept, after the change was counted.
    #[inline(always)]
    pub(crate) fn list(&mut self) {
        let open = self.intervals.open();
        let work = self.intervals.work(open);
        work.listed = true;
        if work.takes_lists() {
            self.dirty.push(open, self.hash, &mut self.intervals.spare);
        }
    }
}
