//! Tables as a cache in front of a store: which cells they lack, taking them in, and evicting others.
//!
//! [`Backing`](super::backing) drives it. Invariants: a cell that leaves owes nothing to a checkpoint any more, and the store
//! is told what it does not have of it before it is asked anything else. So it is right about every place that is not
//! resident, and is asked about no other.

mod list;
mod map;
mod outgoing;
mod value;

pub(crate) use outgoing::{Outgoing, Stored};
use types::{Error, KeyGroup, Result, Timestamp};

use super::{
    Drained, StateTable,
    cells::{Cell, Cells, Group, find, insert},
    chunks::Refill,
    intervals::{Interval, Intervals},
    slot::{Place, Progress, Slot},
};
use crate::{expiry::Hand, key::KeyRef, run::entry::Entry, store::KeyValueStore};

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

/// Looking for cells to evict as a clock's hand does: who was asked for since it came by stays for one more round.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// Where in the memory of a key group it is.
    pub(crate) bucket: usize,
    /// How many are to go.
    pub(crate) wanted: usize,
    /// How many went.
    pub(crate) evicted: usize,
    /// How many cells are still looked at before whoever comes next must go: a hand that finds all in use must not go on.
    pub(crate) visits: usize,
}

impl Round {
    /// Whether some are still to go.
    pub(crate) fn is_on(&self) -> bool {
        self.evicted < self.wanted
    }
}

/// A slot that can be evicted and taken in again.
pub(crate) trait CachedSlot: Slot {
    /// Whether items (elements, entries) count as cells, and not keys.
    const COUNTS_ITEMS: bool;
    /// Bytes of memory of an item besides the cell.
    const ITEM_BYTES: usize;
    /// What has to be done with each entry that restoring puts into the store.
    const NOTE_RESTORED: Option<Note> = None;

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
    /// Drains all that it owes, whichever interval changed it.
    fn drain_all(&mut self, at: Place<'_>, intervals: &mut Intervals) -> Result<()>;
    /// Whether it was asked for since the last look for cells to evict.
    fn recent(&mut self) -> &mut bool;
    /// Adds what the store does not have to what it is to be told. Everything is drained.
    fn tell(&mut self, at: Place<'_>, store: &mut Outgoing) -> Result<()>;
    /// Leaves the table.
    fn leave(self, intervals: &mut Intervals);
}

/// Takes note of an entry.
pub(crate) type Note = fn(&Entry<'_>, &mut Intervals) -> Result<()>;

/// A table that can stand in front of a store.
pub(crate) trait CachedTable: StateTable {
    /// From now on a store stands behind it, in which the state's name has this rank. The table must be empty.
    fn use_store(&mut self, rank: u16);
    /// What is missing for `need` of `key`.
    fn lack(&mut self, key: KeyRef<'_>, need: Need<'_>) -> Lack;
    /// Takes in what the store has of `key`.
    fn admit(&mut self, key: KeyRef<'_>, found: Found<'_>) -> Result<()>;
    /// Whether an entry of a map is resident.
    fn holds(&self, key: KeyRef<'_>, sub: &[u8]) -> bool;
    /// Tells the store what it does not have of what has left the table or is written at once. After an error all of it is
    /// told again by the next call.
    fn tell(&mut self, store: &mut dyn KeyValueStore) -> Result<()>;
    /// Cells, elements and entries that take memory.
    fn residents(&self) -> usize;
    /// About how many bytes one of them takes.
    fn resident_bytes(&self) -> usize;
    /// Key groups.
    fn group_count(&self) -> usize;
    /// Lets the hand go on through the `group`-th key group: cells that it evicts drain what they owe, and the store is to be
    /// [told](Self::tell) of them. Returns whether it has come to the end of the group.
    ///
    /// # Errors
    /// Those of encoding a value: its cell stays, and draining fails, too.
    fn evict(&mut self, group: usize, round: &mut Round) -> Result<bool>;
    /// Whether it has to see what restoring puts into the store.
    fn notes_restored(&self) -> bool;
    /// Takes note of an entry that restoring puts into the store, where it [has to](Self::notes_restored).
    fn note_restored(&mut self, entry: &Entry<'_>) -> Result<()>;
    /// Whether anything that was flipped is not taken yet.
    fn holds_flipped(&self) -> bool;
    /// Lets the hand go on through a key group, and drops what has expired there ([`Cells::expire`]).
    fn expire(&mut self, group: usize, hand: &mut Hand, until: Timestamp, budget: &mut usize) -> bool;
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

    fn may_wait(&self) -> bool {
        T::Slot::IS_ONE_ENTRY
    }

    fn make_room(&mut self, group: KeyGroup, cells: usize) {
        self.inner_mut().make_room(group, cells);
    }

    fn count_waiting(&mut self, came: usize, went: usize) {
        self.inner_mut().intervals.count_living(came, went);
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
    fn use_store(&mut self, rank: u16) {
        self.inner_mut().intervals.use_store(rank);
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

    fn tell(&mut self, store: &mut dyn KeyValueStore) -> Result<()> {
        self.inner_mut().intervals.outgoing().map_or(Ok(()), |outgoing| outgoing.tell(store))
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

    fn evict(&mut self, group: usize, round: &mut Round) -> Result<bool> {
        let cells = self.inner_mut();
        let key_group = KeyGroup(cells.first_group + group as u16);
        let intervals = &mut cells.intervals;
        let cells = &mut cells.groups[group].cells;
        while round.is_on() {
            let bucket = round.bucket;
            if bucket >= cells.num_buckets() {
                round.bucket = 0;
                return Ok(true);
            }
            round.bucket += 1;
            let Some(cell) = cells.get_bucket_mut(bucket) else { continue };
            round.visits = round.visits.saturating_sub(1);
            if std::mem::take(cell.slot.recent()) && round.visits > 0 {
                continue;
            }
            let at = Place { group: key_group, key: &cell.key };
            let told = cell.slot.drain_all(at, intervals).and_then(|()| match intervals.outgoing() {
                Some(store) => cell.slot.tell(at, store),
                None => Ok(()),
            });
            if let Err(error) = told {
                // Whoever needed room may pass over it; the checkpoint must not.
                intervals.fail(Error::user(error.to_string()).with_kind(error.kind()));
                return Err(error);
            }
            let before = intervals.items();
            if let Ok(found) = cells.get_bucket_entry(bucket) {
                found.remove().0.slot.leave(intervals);
            }
            round.evicted += 1 + before - intervals.items();
        }
        Ok(false)
    }

    fn notes_restored(&self) -> bool {
        T::Slot::NOTE_RESTORED.is_some()
    }

    fn note_restored(&mut self, entry: &Entry<'_>) -> Result<()> {
        T::Slot::NOTE_RESTORED.map_or(Ok(()), |note| note(entry, &mut self.inner_mut().intervals))
    }

    fn holds_flipped(&self) -> bool {
        !self.inner().intervals.is_only_open()
    }

    fn expire(&mut self, group: usize, hand: &mut Hand, until: Timestamp, budget: &mut usize) -> bool {
        self.inner_mut().expire(group, hand, until, budget)
    }
}
