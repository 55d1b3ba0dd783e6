//! [`KeyedState`] with a store behind its tables: fetching what an operation needs, keeping the number of resident cells
//! within its bound, and telling the store of those that leave.
//!
//! Order is everything: the store is told what it does not have before it is asked anything; and cells leave only between
//! operations, so that what was fetched for one is there when it runs.

use std::{any::Any, ops::ControlFlow};

use types::{CheckpointId, Error, ErrorKind, KeyGroupRange, Result};

use super::{
    CachedTable, KeyedState, MapTable, Need,
    keyed_state::TablePlace,
    resident::{Found, Lack, Round},
};
use crate::{
    Data,
    declare::{Declared, StateKind},
    key::KeyRef,
    run::entry::Entry,
    store::{
        ExpiryRule, KeyBatch, KeyValueStore, Order, SortedEntries, StoreKey, TableShare, push_store_key,
    },
};

/// Whatever a share says, so many cells may be resident, besides those of the batch at hand.
const LEAST_CELLS: usize = 8;
/// So many more than must leave do, or an eighth of all, so that it is not needed at once again: no more, since the task waits
/// for the store.
const LEAVE_MORE: usize = 256;
/// So many more than came leave at a time, where the bound has become less.
const STEP: usize = 1024;
/// For each cell that is to leave, so many are looked at for one that nobody asked for.
const VISITS: usize = 32;

/// The store behind the tables.
pub(crate) struct Backing {
    store: Box<dyn KeyValueStore>,
    /// For each table, the rank of its state's name: states are sorted as in a run.
    ranks: Vec<u16>,
    limit: Limit,
    /// The share when they were counted last.
    share: usize,
    /// How many cells may be resident, by the limit and by what they took when they were counted last.
    bound: usize,
    /// About how many are, counted up since the last exact count.
    resident: usize,
    /// How many were then.
    counted: usize,
    /// Where looking for cells to evict goes on: a table, one of its key groups, a place in that.
    hand: (usize, usize, usize),
    evicted: u64,
    reads: KeyBatch,
}

impl Backing {
    /// The key of a place in the store.
    fn place<'a>(&self, index: usize, key: KeyRef<'a>, sub: &'a [u8]) -> StoreKey<'a> {
        StoreKey { state: self.ranks[index], group: key.group, key: key.bytes, sub }
    }

    /// What all places of a key begin with.
    fn prefix(&self, index: usize, key: KeyRef<'_>) -> Vec<u8> {
        let mut prefix = Vec::new();
        push_store_key(&mut prefix, self.place(index, key, &[]));
        prefix
    }

    /// Whether the share has changed since cells were counted: other subtasks have come or gone.
    fn is_share_new(&self) -> bool {
        matches!(&self.limit, Limit::Bytes(share) if share.bytes() != self.share)
    }

    fn scan(
        &self,
        prefix: &[u8],
        order: Order,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.store.scan(prefix, order, &mut |key, value| visit(&key[prefix.len()..], value))
    }
}

/// What bounds the cells in memory.
enum Limit {
    Cells(usize),
    Bytes(TableShare),
}

/// A value of a map that is passed by: one of the table, or the bytes of the store.
pub(crate) enum Seen<'a, V> {
    /// A resident value.
    Resident(&'a V),
    /// An encoded value.
    Stored(&'a [u8]),
}

impl KeyedState {
    /// As [`new`](Self::new), with an empty `store` behind the tables, of whose cells about `cells` at most stay in memory:
    /// values, elements of lists, entries of maps, and their keys. Timers are not counted.
    #[must_use]
    pub fn with_store(
        declared: Declared,
        groups: KeyGroupRange,
        first: CheckpointId,
        store: Box<dyn KeyValueStore>,
        cells: usize,
    ) -> Self {
        let mut state = Self::new(declared, groups, first);
        state.put_before(store, Limit::Cells(cells));
        state
    }

    /// Puts the tables, which must be empty, before an empty `store`: from now on they take about as much memory as
    /// `share` says. Timers are not counted.
    pub fn use_store(&mut self, store: Box<dyn KeyValueStore>, share: TableShare) {
        self.put_before(store, Limit::Bytes(share));
    }

    fn put_before(&mut self, mut store: Box<dyn KeyValueStore>, limit: Limit) {
        let mut ranks = vec![0; self.declared.states.len()];
        for (rank, (index, _)) in (0..).zip(self.declared.sorted()) {
            ranks[usize::from(index)] = rank;
        }
        self.tables.iter_mut().zip(&ranks).for_each(|(table, rank)| table.use_store(*rank));
        if let Some(clocks) = &self.clocks {
            for (state, rank) in self.declared.states.iter().zip(&ranks) {
                if let Some(domain) = state.spec.expiry {
                    let until = clocks.everywhere(domain).clone();
                    let rule = match state.spec.kind {
                        StateKind::List => ExpiryRule::of_lists(until),
                        _ => ExpiryRule::of_values(until),
                    };
                    store.expires(&rank.to_be_bytes(), &rule);
                }
            }
        }
        self.backing = Some(Box::new(Backing {
            store,
            ranks,
            limit,
            share: 0,
            bound: 0,
            resident: 0,
            counted: 0,
            hand: (0, 0, 0),
            evicted: 0,
            reads: KeyBatch::default(),
        }));
        self.count_residents();
    }

    /// How many cells have left for the store, since the beginning: for metrics.
    #[must_use]
    pub fn evicted_cells(&self) -> u64 {
        self.backing.as_ref().map_or(0, |backing| backing.evicted)
    }

    /// Cells that are in memory, their keys counted where they have elements or entries: for metrics.
    #[must_use]
    pub fn resident_cells(&self) -> usize {
        self.tables.iter().map(|table| table.residents()).sum()
    }

    pub(crate) fn has_store(&self) -> bool {
        self.backing.is_some()
    }

    /// Where in the store the entries of the state at `place` lie, by the rank of its name; `None` if they lie in memory.
    pub(crate) fn rank_in_store(&self, place: TablePlace) -> Option<u16> {
        self.backing.as_ref()?.ranks.get(place.0).copied()
    }

    /// Whether the table has to [see](Self::note_restored) each entry that is loaded into the store.
    pub(crate) fn notes_restored(&self, place: TablePlace) -> bool {
        self.tables.get(place.0).is_some_and(|table| table.notes_restored())
    }

    /// Takes note of an entry that is loaded into the store.
    pub(crate) fn note_restored(&mut self, place: TablePlace, entry: &Entry<'_>) -> Result<()> {
        self.tables[place.0].note_restored(entry)
    }

    /// Loads entries into the store, greater ones at each call.
    pub(crate) fn bulk_load(&mut self, entries: &SortedEntries) -> Result<()> {
        self.backing.as_mut().map_or(Ok(()), |backing| backing.store.bulk_load(entries))
    }

    /// The values of all value states under `keys`, in one read of those that are missing.
    pub(super) fn fetch_values<'a>(&mut self, keys: impl Iterator<Item = KeyRef<'a>>) -> Result<()> {
        self.relieve()?;
        let mut missing: Vec<(usize, KeyRef<'a>)> = Vec::new();
        let values: Vec<usize> = (0..self.tables.len())
            .filter(|&index| self.declared.states[index].spec.kind.is_one_value())
            .collect();
        for key in keys {
            let lacking = values.iter().filter(|&&it| self.tables[it].lack(key, Need::Value) == Lack::Place);
            missing.extend(lacking.map(|&index| (index, key)));
        }
        missing.sort_unstable_by_key(|&(index, key)| (index, key.group, key.bytes));
        missing.dedup_by_key(|&mut (index, key)| (index, key.group, key.bytes));
        self.read(&missing, &[])
    }

    /// What an operation on one key needs.
    #[cold]
    pub(super) fn fetch(&mut self, index: u16, key: KeyRef<'_>, need: Need<'_>) -> Result<()> {
        self.relieve()?;
        let index = usize::from(index);
        loop {
            match (self.tables[index].lack(key, need), need) {
                (Lack::Nothing, _) => return Ok(()),
                (Lack::Place, Need::Entry(sub) | Need::Change(sub)) => self.read(&[(index, key)], sub)?,
                (Lack::Place, _) => self.read(&[(index, key)], &[])?,
                (Lack::Tail, _) => {
                    self.count_resident(1);
                    self.tables[index].admit(key, Found::Tail)?;
                }
                (Lack::List, _) => self.read_list(index, key)?,
                (Lack::Beyond, _) => self.look_beyond(index, key)?,
            }
        }
    }

    fn count_resident(&mut self, came: usize) {
        if let Some(backing) = &mut self.backing {
            backing.resident += came;
        }
    }

    /// Reads places below keys and takes them in.
    fn read(&mut self, places: &[(usize, KeyRef<'_>)], sub: &[u8]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        self.tell_store()?;
        let Self { tables, backing: Some(backing), .. } = self else { return Ok(()) };
        let mut reads = std::mem::take(&mut backing.reads);
        reads.clear();
        places.iter().for_each(|&(index, key)| reads.push_place(backing.place(index, key, sub)));
        let admit = &mut |number: usize, value: Option<&[u8]>| {
            let (index, key) = places[number];
            tables[index].admit(key, Found::Place(sub, value)).map_err(unreadable)
        };
        let read = backing.store.read(&reads, admit);
        backing.reads = reads;
        // A map's entry may come with a cell for its key.
        backing.resident += 2 * places.len();
        read
    }

    fn read_list(&mut self, index: usize, key: KeyRef<'_>) -> Result<()> {
        self.tell_store()?;
        let Self { tables, backing: Some(backing), .. } = self else { return Ok(()) };
        let mut chunks = Vec::new();
        backing.scan(&backing.prefix(index, key), Order::Ascending, |number, chunk| {
            chunks.push((number.to_vec(), chunk.to_vec()));
            Ok(ControlFlow::Continue(()))
        })?;
        let before = tables[index].residents();
        tables[index].admit(key, Found::List(&chunks)).map_err(unreadable)?;
        backing.resident += tables[index].residents().saturating_sub(before);
        Ok(())
    }

    fn look_beyond(&mut self, index: usize, key: KeyRef<'_>) -> Result<()> {
        self.tell_store()?;
        let Self { tables, backing: Some(backing), .. } = self else { return Ok(()) };
        let mut beyond = false;
        backing.scan(&backing.prefix(index, key), Order::Ascending, |sub, _| {
            beyond = !tables[index].holds(key, sub);
            Ok(if beyond { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        backing.resident += 1;
        tables[index].admit(key, Found::Beyond(beyond))
    }

    /// Whether the map of `key` may have entries that are not resident.
    pub(crate) fn is_map_partial<V: Data>(&self, index: u16, key: KeyRef<'_>) -> bool {
        self.backing.is_some() && map_table::<V>(&self.tables, index).is_partial(key)
    }

    /// Calls `visit` with the entries of a map in the order of their map keys, until it breaks: those of the store, and
    /// over them those of the table. Makes nothing resident, so a map may be larger than memory.
    pub(crate) fn visit_map<V: Data>(
        &mut self,
        index: u16,
        key: KeyRef<'_>,
        order: Order,
        mut visit: impl FnMut(&[u8], Seen<'_, V>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.tell_store()?;
        let table = map_table::<V>(&self.tables, index);
        let mut resident = table.visit(key, order).peekable();
        let mut stopped = false;
        if let Some(backing) = &self.backing
            && table.is_partial(key)
        {
            backing.scan(&backing.prefix(usize::from(index), key), order, |sub, value| {
                let comes_first = |other: &[u8]| match order {
                    Order::Ascending => other < sub,
                    Order::Descending => other > sub,
                };
                while !stopped && let Some((at, value)) = resident.next_if(|(at, _)| comes_first(at)) {
                    if let Some(value) = value {
                        stopped = visit(at, Seen::Resident(value))?.is_break();
                    }
                }
                let is_hidden = resident.peek().is_some_and(|(at, _)| at.is(sub));
                if !stopped && !is_hidden {
                    stopped = visit(sub, Seen::Stored(value))?.is_break();
                }
                Ok(if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        let live = resident.filter_map(|(at, value)| Some((at, value?)));
        for (at, value) in live {
            if stopped || visit(at, Seen::Resident(value))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Tells the store what it does not have of what has left the tables. Must come before it is asked anything.
    pub(crate) fn tell_store(&mut self) -> Result<()> {
        let Self { tables, backing: Some(backing), .. } = self else { return Ok(()) };
        let told = tables.iter_mut().try_for_each(|table| table.tell(&mut *backing.store));
        told.map_err(|error| error.context("cannot write changed state to the store behind the table"))
    }

    /// Evicts cells if there are too many. Those that owe something to a checkpoint drain it early: it becomes a segment of
    /// the coming run.
    fn relieve(&mut self) -> Result<()> {
        let Some(backing) = &self.backing else { return Ok(()) };
        if backing.resident <= backing.bound && !backing.is_share_new() {
            return Ok(());
        }
        let came = backing.resident.saturating_sub(backing.counted);
        self.count_residents();
        let Some(backing) = &self.backing else { return Ok(()) };
        let (resident, bound) = (backing.resident, backing.bound);
        if resident > bound {
            let excess = resident - bound + (bound / 8).min(LEAVE_MORE);
            let evicted = self.evict(excess.min(came + STEP));
            self.count_residents();
            evicted?;
            self.tell_store()?;
        }
        Ok(())
    }

    /// Counts the resident cells, and says how many there may be.
    pub(super) fn count_residents(&mut self) {
        let Self { tables, backing: Some(backing), .. } = self else { return };
        let (mut residents, mut bytes) = (0, 0);
        for table in &*tables {
            // The least share is a cell of each table: so the mean is known before there is any.
            let count = table.residents();
            residents += count;
            bytes += (count + 1) * table.resident_bytes();
        }
        (backing.resident, backing.counted) = (residents, residents);
        backing.bound = match &mut backing.limit {
            Limit::Cells(cells) => *cells,
            Limit::Bytes(share) => {
                share.set_used(bytes);
                backing.share = share.bytes();
                let each = bytes / (residents + tables.len()).max(1);
                (share.bytes() / each.max(1)).max(LEAST_CELLS)
            }
        };
    }

    /// Evicts about `count` cells, going round all key groups of all tables.
    fn evict(&mut self, count: usize) -> Result<()> {
        let Self { tables, declared, backing: Some(backing), .. } = self else { return Ok(()) };
        let groups: usize = tables.iter().map(|table| table.group_count()).sum();
        let (mut index, mut group, bucket) = backing.hand;
        let mut round = Round { bucket, wanted: count, evicted: 0, visits: count.saturating_mul(VISITS) };
        let mut result = Ok(());
        // Twice round, and the rest of the group where it begins: the second time nobody was asked for.
        for _ in 0..=2 * groups {
            match tables[index].evict(group, &mut round) {
                Ok(true) if group + 1 < tables[index].group_count() => group += 1,
                Ok(true) => (index, group) = ((index + 1) % tables.len(), 0),
                Ok(false) => break,
                Err(error) => {
                    result = Err(error.context(format!("state {:?}", declared.states[index].spec.name)));
                    break;
                }
            }
        }
        backing.hand = (index, group, round.bucket);
        backing.evicted += round.evicted as u64;
        if let Limit::Bytes(share) = &backing.limit {
            share.note_evicted(round.evicted);
        }
        result
    }
}

/// What the store gives back cannot be decoded: the store is damaged, and no checkpoint is.
fn unreadable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Corrupt => error
            .context("the store behind the table gives back what was not written")
            .with_kind(ErrorKind::Unavailable),
        _ => error,
    }
}

fn map_table<V: Data>(tables: &[Box<dyn CachedTable>], index: u16) -> &MapTable<V> {
    let table: &dyn Any = &*tables[usize::from(index)];
    table.downcast_ref().expect("a handle is used with the state that was declared with it")
}
