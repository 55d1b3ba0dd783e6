//! What tables and the slots of their cells have to be able to do, whatever kind of state it is.

use std::any::Any;

use types::{KeyBytes, KeyGroup, Result, Timestamp};

use super::{
    Drained,
    chunks::Refill,
    intervals::{Interval, Intervals},
};
use crate::{key::KeyRef, run::entry::Entry};

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
    /// Closes the open interval and opens `next`. Touches no cell. `is_full` if all that lives is to be drained, and not
    /// only what changed.
    fn flip(&mut self, next: Interval, is_full: bool);
    /// Drains about `budget` cells of `interval`, all of whose elders are drained.
    fn drain(&mut self, interval: Interval, budget: usize) -> Result<Progress>;
    /// Whether nothing at all is to be drained of `interval`.
    fn is_untouched(&self, interval: Interval) -> bool;
    /// Gives away what was drained of the oldest interval.
    fn take_oldest(&mut self) -> Drained;
    /// Puts an entry of a run into the table, over what older runs had put there.
    fn restore(&mut self, key: KeyRef<'_>, entry: &Entry<'_>) -> Result<()>;
    /// Whether the entries that it is restored from may wait until their keys are asked for: each is a cell.
    fn may_wait(&self) -> bool {
        false
    }
    /// Makes room for so many more cells of a key group.
    fn make_room(&mut self, _group: KeyGroup, _cells: usize) {}
    /// So many entries with a value have begun to wait for their cells, and so many wait no longer: all of them live.
    fn count_waiting(&mut self, _came: usize, _went: usize) {}
    /// Whether `value` comes out of decoding and encoding as it went in.
    fn check_value(&self, value: &[u8]) -> Result<bool>;
    /// Cells, tombstones not yet drained included.
    fn cells(&self) -> usize;
    /// How many entries with a value are all that lives, where what is drained can be all of it. `None` of timers if there
    /// are any, of lists and maps also if there were in this interval.
    fn living(&self) -> Option<usize>;
    /// Cells of flipped intervals that are still to be drained.
    fn undrained(&self) -> usize;
    /// Cells that are still to be drained, those changed in the open interval included.
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
    /// The type of its values.
    type Value;
    /// Whether draining a cell writes all of it, as one entry. Only such cells are swept.
    const IS_ONE_ENTRY: bool;
    /// What an entry takes, roughly.
    const ENTRY_BYTES: usize;

    /// Whether the slot says nothing more than a missing one would.
    fn is_vacant(&self) -> bool;
    /// Whether it has changes of `interval` that are not yet drained. Where all that lived is swept (`is_full`): whether it
    /// lived at the end of the interval, and is not yet drained.
    fn owes(&self, interval: Interval, is_full: bool) -> bool;
    /// Drains about `budget` of what it owes to `interval`.
    fn drain(
        &mut self,
        at: Place<'_>,
        interval: Interval,
        budget: usize,
        into: &mut Intervals,
    ) -> Result<Progress>;
    /// Puts an entry of a run into the slot.
    fn restore(&mut self, entry: &Entry<'_>, into: &mut Intervals) -> Result<()>;
    /// Drops what has expired and is drained: runs and whoever reads them know that it has expired. Looks at `budget` items at the
    /// most, and at least at one; `after` says behind which map key to begin, and where it stopped.
    fn expire(
        &mut self,
        expired: Expired<Self::Value>,
        budget: usize,
        after: &mut Option<KeyBytes>,
        into: &mut Intervals,
    ) -> usize;
}

/// Tells which values have expired.
pub(crate) struct Expired<V> {
    pub(super) deadline: fn(&V) -> Timestamp,
    pub(super) until: Timestamp,
}

impl<V> Expired<V> {
    pub(super) fn has(&self, value: &V) -> bool {
        (self.deadline)(value) <= self.until
    }
}

/// The key group and key of a cell, as entries are written under it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) group: KeyGroup,
    pub(crate) key: &'a [u8],
}
