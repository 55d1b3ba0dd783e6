//! Tables as a cache in front of a store: which cells they lack, taking them in, and evicting others.
//!
//! [`Backing`](super::backing) drives it. Invariants: what draining has written and the store does not have yet belongs
//! to resident cells; a cell that owes a change is never evicted. So the store is right about every place that is not
//! resident, and is asked about no other.

mod list;
mod map;
mod value;

use types::Result;

use super::{
    Drained, StateTable,
    cells::{Cell, Cells, Group, Progress, Slot, find, insert},
    chunks::Refill,
    drained::Line,
    intervals::{Interval, Intervals},
};
use crate::{key::KeyRef, run::entry::Entry};

/// What an operation is about to use.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need<'a> {
    /// The value of a key.
    Value,
    /// All elements of a list.
    List,
    /// The end of a list, to append to.
    Tail,
    /// An entry of a map, to read it.
    Entry(&'a [u8]),
    /// An entry of a map, to change it: also whether the map has any, so that clearing it later leaves what it must.
    Change(&'a [u8]),
    /// Whether a map has entries.
    Clear,
}

/// What the table must be given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Nothing: it is resident, or known to be absent.
    Nothing,
    /// The value of the place.
    Place,
    /// All elements.
    List,
    /// A cell to append to; nothing of the store.
    Tail,
    /// Whether the store has an entry that the table does not [hold](CachedTable::holds).
    Beyond,
}

/// What the store has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// The value at a place below the key.
    Place(&'a [u8], Option<&'a [u8]>),
    /// The chunks of a list with their numbers.
    List(&'a [(Vec<u8>, Vec<u8>)]),
    /// An answer to [`Lack::Tail`].
    Tail,
    /// An answer to [`Lack::Beyond`].
    Beyond(bool),
}

/// A slot that can be evicted and taken in again.
pub(crate) trait CachedSlot: Slot {
    /// Whether items (elements, entries) count as cells, and not keys.
    const COUNTS_ITEMS: bool;
    /// Bytes of memory of an item besides the cell.
    const ITEM_BYTES: usize;

    /// Whether `value` comes out of decoding and encoding as it went in.
    fn survives_decoding(value: &[u8]) -> Result<bool>;
    /// What is missing for `need`. `slot` is that of the key, if it has a cell.
    fn lack(slot: Option<&Self>, need: Need<'_>, open: Interval) -> Lack;
    /// Takes in what the store has. Changes nothing if that cannot be decoded.
    fn admit(&mut self, found: Found<'_>, intervals: &mut Intervals) -> Result<()>;
    /// Whether an entry with this map key is resident.
    fn holds(&self, _sub: &[u8]) -> bool {
        false
    }
    /// Whether everything that was changed is drained.
    fn is_clean(&self) -> bool;
    /// Whether it was asked for since the last look for cells to evict.
    fn recent(&mut self) -> &mut bool;
    /// Leaves the table.
    fn leave(self, intervals: &mut Intervals);
    /// Takes note of an entry that restoring puts into the store.
    fn note_restored(_entry: &Entry<'_>, _intervals: &mut Intervals) -> Result<()> {
        Ok(())
    }
}

/// A table that can stand in front of a store.
pub(crate) trait CachedTable: StateTable {
    /// From now on a store stands behind it. The table must be empty.
    fn use_store(&mut self);
    /// What is missing for `need` of `key`.
    fn lack(&mut self, key: KeyRef<'_>, need: Need<'_>) -> Lack;
    /// Takes in what the store has of `key`.
    fn admit(&mut self, key: KeyRef<'_>, found: Found<'_>) -> Result<()>;
    /// Whether an entry of a map is resident.
    fn holds(&self, key: KeyRef<'_>, sub: &[u8]) -> bool;
    /// Drains about `budget` cells of the open interval, all older ones being drained.
    fn drain_open(&mut self, budget: usize) -> Result<Progress>;
    /// Calls `visit` with everything drained that the store does not have, oldest first.
    fn visit_unstored(&mut self, visit: &mut dyn FnMut(&Line<'_>)) -> Result<()>;
    /// Remembers that the store has everything that was drained.
    fn set_stored(&mut self);
    /// Whether the store has everything that the oldest interval drained.
    fn is_oldest_stored(&mut self) -> bool;
    /// Cells, elements and entries that take memory.
    fn residents(&self) -> usize;
    /// About how many bytes one of them takes.
    fn resident_bytes(&self) -> usize;
    /// Key groups.
    fn group_count(&self) -> usize;
    /// Evicts up to about `count` residents of the `group`-th key group that owe nothing, and were not asked for since
    /// the last call. Everything drained must be in the store. Returns how many went.
    fn evict(&mut self, group: usize, count: usize) -> usize;
    /// Takes note of an entry that restoring puts into the store.
    fn note_restored(&mut self, entry: &Entry<'_>) -> Result<()>;
}

/// A table that is cells and nothing else: all kinds of declared state.
pub(crate) trait CellTable: Send + 'static {
    type Slot: CachedSlot;
    fn inner(&self) -> &Cells<Self::Slot>;
    fn inner_mut(&mut self) -> &mut Cells<Self::Slot>;
}

impl<T: CellTable> StateTable for T {
    fn flip(&mut self, next: Interval, is_full: bool) {
        self.inner_mut().flip(next, is_full);
    }

    fn drain(&mut self, interval: Interval, budget: usize) -> Result<Progress> {
        self.inner_mut().drain(interval, budget)
    }

    fn is_untouched(&self, interval: Interval) -> bool {
        self.inner().is_untouched(interval)
    }

    fn take_oldest(&mut self) -> Drained {
        self.inner_mut().take_oldest()
    }

    fn restore(&mut self, key: KeyRef<'_>, entry: &Entry<'_>) -> Result<()> {
        self.inner_mut().restore(key, entry)
    }

    fn check_value(&self, value: &[u8]) -> Result<bool> {
        T::Slot::survives_decoding(value)
    }

    fn cells(&self) -> usize {
        if T::Slot::COUNTS_ITEMS { self.inner().items() } else { self.inner().cells() }
    }

    fn living(&self) -> Option<usize> {
        self.inner().living()
    }

    fn undrained(&self) -> usize {
        self.inner().undrained()
    }

    fn changed(&self) -> usize {
        self.inner().changed()
    }

    fn approx_bytes(&self) -> usize {
        self.inner().approx_bytes() + self.inner().items() * T::Slot::ITEM_BYTES
    }

    fn touched(&self) -> u64 {
        self.inner().touched()
    }

    fn refill(&self) -> Option<Refill> {
        self.inner().intervals.refill()
    }
}

impl<T: CellTable> CachedTable for T {
    fn use_store(&mut self) {
        self.inner_mut().intervals.has_store = true;
    }

    fn lack(&mut self, key: KeyRef<'_>, need: Need<'_>) -> Lack {
        let cells = self.inner_mut();
        let (index, open) = (cells.index(key.group), cells.intervals.open());
        match find(&mut cells.groups[index].cells, key) {
            Ok(mut found) => {
                let slot = &mut found.get_mut().slot;
                *slot.recent() = true;
                T::Slot::lack(Some(slot), need, open)
            }
            Err(_) => T::Slot::lack(None, need, open),
        }
    }

    fn admit(&mut self, key: KeyRef<'_>, found: Found<'_>) -> Result<()> {
        let cells = self.inner_mut();
        let index = cells.index(key.group);
        let intervals = &mut cells.intervals;
        if let Found::Place(sub, Some(value)) = found {
            intervals.note_entry_bytes(key.bytes.len() + sub.len() + value.len());
        }
        let Group { cells, moved, .. } = &mut cells.groups[index];
        match find(cells, key) {
            Ok(mut cell) => cell.get_mut().slot.admit(found, intervals),
            Err(absent) => {
                let mut slot = T::Slot::default();
                slot.admit(found, intervals)?;
                *slot.recent() = true;
                insert(absent.into_table(), key, moved).slot = slot;
                Ok(())
            }
        }
    }

    fn holds(&self, key: KeyRef<'_>, sub: &[u8]) -> bool {
        self.inner().get(key).is_some_and(|slot| slot.holds(sub))
    }

    fn drain_open(&mut self, budget: usize) -> Result<Progress> {
        let cells = self.inner_mut();
        let open = cells.intervals.open();
        let progress = cells.drain(open, budget)?;
        if progress.finished {
            cells.intervals.work(open).next_group = 0;
        }
        Ok(progress)
    }

    fn visit_unstored(&mut self, visit: &mut dyn FnMut(&Line<'_>)) -> Result<()> {
        for work in self.inner_mut().intervals.all_work() {
            work.drained.unstored().try_for_each(|line| line.map(|line| visit(&line)))?;
        }
        Ok(())
    }

    fn set_stored(&mut self) {
        self.inner_mut().intervals.all_work().for_each(|work| work.drained.set_stored());
    }

    fn is_oldest_stored(&mut self) -> bool {
        self.inner_mut().intervals.all_work().next().is_none_or(|work| work.drained.is_stored())
    }

    fn residents(&self) -> usize {
        self.inner().cells() + self.inner().items()
    }

    fn resident_bytes(&self) -> usize {
        // Hash tables are between seven eighths and half full.
        let cell = size_of::<Cell<T::Slot>>().max(T::Slot::ITEM_BYTES);
        cell * 3 / 2 + self.inner().intervals.entry_bytes()
    }

    fn group_count(&self) -> usize {
        self.inner().groups.len()
    }

    fn evict(&mut self, group: usize, count: usize) -> usize {
        let cells = self.inner_mut();
        let intervals = &mut cells.intervals;
        let mut evicted = 0;
        cells.groups[group].cells.retain(|cell: &mut Cell<T::Slot>| {
            if evicted >= count || !cell.slot.is_clean() || std::mem::take(cell.slot.recent()) {
                return true;
            }
            let before = intervals.items();
            std::mem::take(&mut cell.slot).leave(intervals);
            evicted += 1 + before - intervals.items();
            false
        });
        evicted
    }

    fn note_restored(&mut self, entry: &Entry<'_>) -> Result<()> {
        T::Slot::note_restored(entry, &mut self.inner_mut().intervals)
    }
}
