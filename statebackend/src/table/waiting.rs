//! [`KeyedState`] after a restore into memory: entries whose cells are not made yet, and making them.
//!
//! A cell takes several times as long to make as its entry takes to read, check and decompress. So a restore ends when all
//! blocks are checked and it is known where the entry of each key stands; its cell is made when the key is first asked for, and
//! some more with each batch and while a task has nothing else to do, key group by key group, until none is left.
//!
//! Invariants: a key that waits has no cell, and nothing works on it before that is made. What waits lives, so it counts among
//! what lives ([`StateTable::count_waiting`]): a delta that is all that lives has none beside it. Whoever makes a cell changes
//! nothing: it is clean, as if it had always been there.

mod blocks;
mod index;

use std::hint::black_box;

use types::{KeyGroup, KeyGroupRange, Result};

pub(crate) use self::{
    blocks::Blocks,
    index::{Index, Spot},
};
use super::{KeyedState, keyed_state::TablePlace};
use crate::key::KeyRef;

/// With each batch as many cells are made unasked as a part of its keys, so that it takes little longer than those asked for.
const PART_OF_BATCH: usize = 4;
/// How many are at the least.
const LEAST_PER_BATCH: usize = 64;
/// How many entries are fetched from memory at once.
const AHEAD: usize = 32;

/// Restored entries whose cells are not made yet.
pub(crate) struct Waiting {
    groups: KeyGroupRange,
    /// By table and key group, none for tables of which nothing waits.
    tables: Vec<Vec<Index>>,
    blocks: Blocks,
    left: usize,
    /// The table and key group of which cells are made next.
    hand: (usize, usize),
    places: Vec<usize>,
}

impl Waiting {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        let (tables, blocks, places) = (Vec::new(), Blocks::default(), Vec::new());
        Self { groups, tables, blocks, left: 0, hand: (0, 0), places }
    }

    /// Adds what waits of a table and key group; says how many.
    pub(crate) fn add(&mut self, place: TablePlace, group: KeyGroup, index: Index) -> usize {
        let came = index.left();
        self.left += came;
        if self.tables.len() <= place.0 {
            self.tables.resize_with(place.0 + 1, Vec::new);
        }
        let groups = &mut self.tables[place.0];
        groups.resize_with(self.groups.len(), Index::default);
        groups[usize::from(group.0 - self.groups.start)] = index;
        came
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.bytes() + self.tables.iter().flatten().map(Index::bytes).sum::<usize>()
    }

    fn index(&self, table: usize, group: KeyGroup) -> Option<&Index> {
        let index = self.tables.get(table)?.get(usize::from(group.0.wrapping_sub(self.groups.start)))?;
        (index.left() > 0).then_some(index)
    }

    /// Lets the hand go on to where something waits.
    fn find_group(&mut self) -> Option<(usize, usize)> {
        while let Some(groups) = self.tables.get(self.hand.0) {
            match groups.iter().skip(self.hand.1).position(|index| index.left() > 0) {
                Some(further) => {
                    self.hand.1 += further;
                    return Some(self.hand);
                }
                None => self.hand = (self.hand.0 + 1, 0),
            }
        }
        None
    }
}

/// How many of the cells that waited after a restore wait no longer, since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeCells {
    /// Those that were made when their keys were asked for.
    pub asked: u64,
    /// Those that were made before anybody asked.
    pub unasked: u64,
    /// Those that had expired meanwhile, among the others: they have no cells.
    pub expired: u64,
}

/// Cells that are being made.
struct Making<'a> {
    state: &'a mut KeyedState,
    waiting: &'a mut Waiting,
}

impl KeyedState {
    /// From now on its cells are made little by little, of entries in these blocks.
    pub(crate) fn wait(&mut self, waiting: Waiting, blocks: Blocks) {
        self.waiting = (waiting.left > 0).then(|| Box::new(Waiting { blocks, ..waiting }));
    }

    /// So many of a table's have begun to wait.
    pub(crate) fn count_waiting(&mut self, place: TablePlace, came: usize) {
        self.table_at(place.0).count_waiting(came, 0);
    }

    /// How many restored values wait for their cells to be made: for metrics. Those that have expired are counted until then.
    #[must_use]
    pub fn waiting_cells(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.left)
    }

    /// Bytes of memory of what waits, blocks and index: for metrics.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.bytes())
    }

    /// How many wait no longer: for metrics.
    #[must_use]
    pub fn made_cells(&self) -> MadeCells {
        self.made
    }

    /// How many cells are made with each batch, besides those of its keys, while any wait after a restore. A quarter as many as it
    /// has keys, and at least 64, where this is not said. For tests.
    pub fn set_made_per_batch(&mut self, cells: usize) {
        self.made_per_batch = Some(cells);
    }

    /// Makes about so many cells of those that wait after a restore; returns how many still do.
    ///
    /// # Errors
    /// `Corrupt` naming file and place if a restored value cannot be decoded.
    pub fn make_waiting(&mut self, cells: usize) -> Result<usize> {
        self.with_waiting(|making| making.next(cells))?;
        Ok(self.waiting_cells())
    }

    /// Makes the cells of these keys, all together, and some more.
    #[cold]
    pub(super) fn make_asked<'a>(&mut self, keys: impl Iterator<Item = KeyRef<'a>>) -> Result<()> {
        let keys: Vec<_> = keys.collect();
        let more = self.made_per_batch.unwrap_or_else(|| (keys.len() / PART_OF_BATCH).max(LEAST_PER_BATCH));
        self.with_waiting(|making| {
            making.keys(&keys)?;
            making.next(more)
        })
    }

    /// Makes the cell of a key, if that waits.
    #[cold]
    pub(super) fn make_one(&mut self, index: u16, key: KeyRef<'_>) -> Result<()> {
        self.with_waiting(|making| making.key(usize::from(index), key))
    }

    fn with_waiting(&mut self, make: impl FnOnce(&mut Making<'_>) -> Result<()>) -> Result<()> {
        let mut lent = Lent { waiting: self.waiting.take(), state: self };
        let Lent { state, waiting: Some(waiting) } = &mut lent else { return Ok(()) };
        make(&mut Making { state, waiting })
    }
}

/// What waits, taken out of its state. It goes back when dropped, so that nothing is lost where decoding panics.
struct Lent<'a> {
    state: &'a mut KeyedState,
    waiting: Option<Box<Waiting>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.state.waiting = self.waiting.take().filter(|waiting| waiting.left > 0);
    }
}

impl Making<'_> {
    /// Makes the cells of these keys in all tables. Each is one step of waiting for memory after the other, so each step is
    /// done for many before the next.
    fn keys(&mut self, keys: &[KeyRef<'_>]) -> Result<()> {
        for table in 0..self.waiting.tables.len() {
            if self.waiting.tables[table].is_empty() {
                continue;
            }
            for keys in keys.chunks(AHEAD) {
                let Waiting { blocks, .. } = &*self.waiting;
                let found =
                    || keys.iter().filter_map(|key| Some((self.waiting.index(table, key.group)?, key.hash)));
                black_box(found().map(|(index, hash)| index.peek(hash)).fold(0, u32::wrapping_add));
                let entries = found().filter_map(|(index, hash)| index.candidate(hash));
                black_box(entries.map(|spot| blocks.peek(spot)).fold(0, u8::wrapping_add));
                keys.iter().try_for_each(|key| self.key(table, *key))?;
            }
        }
        Ok(())
    }

    /// Makes the cell of a key, if that waits.
    fn key(&mut self, table: usize, key: KeyRef<'_>) -> Result<()> {
        let found = self.waiting.index(table, key.group);
        let Some(at) = found.and_then(|index| index.find(key.hash, key.bytes, &self.waiting.blocks)) else {
            return Ok(());
        };
        let group = usize::from(key.group.0 - self.waiting.groups.start);
        self.state.made.asked += 1;
        self.make(table, group, at)
    }

    /// Makes about so many cells, in the order in which they will lie.
    fn next(&mut self, mut cells: usize) -> Result<()> {
        let mut places = std::mem::take(&mut self.waiting.places);
        while cells > 0
            && let Some((table, group)) = self.waiting.find_group()
        {
            let Waiting { groups, tables, blocks, .. } = &mut *self.waiting;
            let index = &mut tables[table][group];
            // Not before: what is asked for here and there would use all of the memory for the first time.
            if let Some(room) = index.needs_room() {
                self.state.tables[table].make_room(KeyGroup(groups.start + group as u16), room);
            }
            let looked = index.upcoming(cells.min(AHEAD), &mut places);
            let entries = places.iter().map(|at| index.spot(*at));
            black_box(entries.map(|spot| blocks.peek(spot)).fold(0, u8::wrapping_add));
            self.state.made.unasked += places.len() as u64;
            places.iter().try_for_each(|at| self.make(table, group, *at))?;
            self.waiting.tables[table][group].pass(looked);
            cells -= looked;
        }
        self.waiting.places = places;
        Ok(())
    }

    fn make(&mut self, table: usize, group: usize, at: usize) -> Result<()> {
        let Waiting { groups, tables, blocks, left, .. } = &mut *self.waiting;
        let key_group = KeyGroup(groups.start + group as u16);
        let index = &mut tables[table][group];
        let spot = index.spot(at);
        let (entry, place) = (blocks.entry(spot), TablePlace(table));
        let key = KeyRef { hash: spot.hash, group: key_group, bytes: entry.key };
        let made = self.state.has_expired(place, key_group, &entry).and_then(|expired| {
            self.state.made.expired += u64::from(expired);
            if expired { Ok(()) } else { self.state.tables[table].restore(key, &entry) }
        });
        made.map_err(|error| blocks.blame(spot, error))?;
        self.state.tables[table].count_waiting(0, 1);
        index.made(at, blocks);
        *left -= 1;
        Ok(())
    }
}
