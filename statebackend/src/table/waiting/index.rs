//! Where the entries of a state and key group wait, found by their keys: sorted into bins by hash, in the order in which their
//! cells will lie.
//!
//! Invariant: of each key there is one entry at the most, and it is a value: what newer runs replace or delete does not wait.

use std::hint::black_box;

use super::{AHEAD, blocks::Blocks};
use crate::table::cells::CellOrder;

/// About how many entries are in a bin: what is looked at for each key that is asked for.
const IN_BIN: usize = 3;

/// Where an entry stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Of its key.
    pub(super) hash: u64,
    /// The number of its block, and whether it is a tombstone.
    block: u32,
    /// Its place in the block.
    pub(super) at: u32,
}

impl Spot {
    const TOMBSTONE: u32 = 1 << 31;
    /// Instead of a block: its cell is made.
    const MADE: u32 = u32::MAX;
    /// Of more blocks no entries can wait.
    pub(super) const MAX_BLOCKS: u32 = Self::TOMBSTONE - 1;

    /// The entry of a key with this hash, at this place in a block of [`Blocks`].
    #[inline]
    pub(crate) fn new(hash: u64, block: u32, at: u32, is_tombstone: bool) -> Self {
        Self { hash, block: if is_tombstone { block | Self::TOMBSTONE } else { block }, at }
    }

    pub(super) fn block(self) -> usize {
        (self.block & !Self::TOMBSTONE) as usize
    }

    fn is_tombstone(self) -> bool {
        self.block & Self::TOMBSTONE != 0
    }

    fn waits(self) -> bool {
        self.block != Self::MADE
    }
}

/// The waiting entries of one state and key group.
#[derive(Default)]
pub(crate) struct Index {
    order: CellOrder,
    /// Where each bin ends among the spots.
    ends: Vec<u32>,
    spots: Vec<Spot>,
    /// How many wait.
    left: usize,
    /// All before this one are made.
    next: usize,
    /// Whether the table has room for them.
    has_room: bool,
}

impl Index {
    /// Of entries in the order in which they were written: of one key the last one counts. The others wait no longer.
    pub(crate) fn new(spots: &[Spot], blocks: &mut Blocks) -> Self {
        let bins = (spots.len() / IN_BIN).next_power_of_two();
        let order = CellOrder::of(spots.len());
        let bin = |spot: &Spot| order.part(spot.hash, bins);
        let mut ends = vec![0; bins];
        spots.iter().for_each(|spot| ends[bin(spot)] += 1);
        let mut end = 0;
        for next in &mut ends {
            let count = std::mem::replace(next, end);
            end += count;
        }
        let mut sorted = vec![Spot::default(); spots.len()];
        for spot in spots {
            let next = &mut ends[bin(spot)];
            sorted[*next as usize] = *spot;
            *next += 1;
        }
        let mut index = Self { order, ends, spots: sorted, ..Self::default() };
        index.keep_newest(blocks);
        index
    }

    /// Leaves out what newer entries replace or delete, and what deletes.
    fn keep_newest(&mut self, blocks: &mut Blocks) {
        let Self { ends, spots, .. } = self;
        let (mut begin, mut kept) = (0, 0);
        for end in ends {
            let bin = begin..*end as usize;
            begin = bin.end;
            for at in bin.clone() {
                let spot = spots[at];
                let mut newer = spots[at + 1..bin.end].iter().filter(|it| it.hash == spot.hash);
                let is_older = newer.any(|it| blocks.entry(*it).key == blocks.entry(spot).key);
                if is_older || spot.is_tombstone() {
                    // Those that come after it are compared with each other alone.
                    blocks.release(spot);
                    continue;
                }
                // What comes later in the bin is not moved yet.
                spots[kept] = spot;
                kept += 1;
            }
            *end = kept as u32;
        }
        spots.truncate(kept);
        self.left = kept;
    }

    /// Puts newer entries over what waits.
    pub(crate) fn put(&mut self, newer: &[Spot], blocks: &mut Blocks) {
        let mut others = Vec::new();
        for chunk in newer.chunks(AHEAD) {
            let found = chunk.iter().filter_map(|spot| self.candidate(spot.hash));
            black_box(found.map(|spot| blocks.peek(spot)).fold(0, u8::wrapping_add));
            for spot in chunk {
                match self.find(spot.hash, blocks.entry(*spot).key, blocks) {
                    Some(at) if spot.is_tombstone() => {
                        self.made(at, blocks);
                        blocks.release(*spot);
                    }
                    Some(at) => blocks.release(std::mem::replace(&mut self.spots[at], *spot)),
                    None => others.push(*spot),
                }
            }
        }
        // Keys that are new.
        if !others.is_empty() {
            let waiting = self.spots.iter().copied().filter(|spot| spot.waits());
            others.splice(0..0, waiting);
            *self = Self::new(&others, blocks);
        }
    }

    /// How many wait.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// How many cells there will be, the first time that it is asked.
    pub(super) fn needs_room(&mut self) -> Option<usize> {
        (!std::mem::replace(&mut self.has_room, true)).then_some(self.left)
    }

    fn bin_of(&self, hash: u64) -> usize {
        self.order.part(hash, self.ends.len())
    }

    /// Reads what [`candidate`](Self::candidate) reads first.
    #[inline]
    pub(super) fn peek(&self, hash: u64) -> u32 {
        if self.left == 0 { 0 } else { self.ends[self.bin_of(hash)] }
    }

    fn bin(&self, hash: u64) -> std::ops::Range<usize> {
        if self.left == 0 {
            return 0..0;
        }
        let bin = self.bin_of(hash);
        let begin = bin.checked_sub(1).map_or(0, |before| self.ends[before]);
        begin as usize..self.ends[bin] as usize
    }

    /// An entry of this hash, nearly always that of the key in question.
    #[inline]
    pub(super) fn candidate(&self, hash: u64) -> Option<Spot> {
        self.bin(hash).map(|at| self.spots[at]).find(|spot| spot.hash == hash && spot.waits())
    }

    /// The place of a key's entry, if it waits.
    pub(super) fn find(&self, hash: u64, key: &[u8], blocks: &Blocks) -> Option<usize> {
        self.bin(hash).find(|&at| {
            let spot = self.spots[at];
            spot.hash == hash && spot.waits() && blocks.entry(spot).key == key
        })
    }

    /// The entry at a place.
    #[inline]
    pub(super) fn spot(&self, at: usize) -> Spot {
        self.spots[at]
    }

    /// The places of those that come next, in the order of their cells. Looks at `count` at the most; says how many it has
    /// looked at.
    pub(super) fn upcoming(&self, count: usize, places: &mut Vec<usize>) -> usize {
        let end = (self.next + count).min(self.spots.len());
        places.clear();
        places.extend((self.next..end).filter(|at| self.spots[*at].waits()));
        places.sort_unstable_by_key(|at| self.order.place(self.spots[*at].hash));
        end - self.next
    }

    /// So many more are made, or were before.
    pub(super) fn pass(&mut self, count: usize) {
        self.next += count;
    }

    /// The cell of the entry at this place is made.
    #[inline]
    pub(super) fn made(&mut self, at: usize, blocks: &mut Blocks) {
        let spot = &mut self.spots[at];
        blocks.release(*spot);
        spot.block = Spot::MADE;
        self.left -= 1;
        if self.left == 0 {
            *self = Self { has_room: true, ..Self::default() };
        }
    }

    /// What it takes.
    pub(super) fn bytes(&self) -> usize {
        self.spots.capacity() * size_of::<Spot>() + self.ends.capacity() * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use types::{CheckpointId, KeyGroup, KeyGroupRange, key_hash};

    use super::*;
    use crate::{KeyRef, KeyedState, StateDeclarations};

    /// A cell is put where the one before was, or right behind: the processor sees what comes next.
    #[test]
    fn entries_come_in_the_order_of_their_cells() {
        let keys: Vec<_> = (0..5000_u64).map(|number| number.to_be_bytes()).collect();
        let spots: Box<[Spot]> =
            keys.iter().zip(0..).map(|(key, at)| Spot::new(key_hash(key), 0, at, false)).collect();
        // All hashes differ, so no block is looked at.
        let mut index = Index::new(&spots, &mut Blocks::default());
        assert_eq!(index.left(), keys.len());
        let (mut taken, mut places) = (Vec::new(), Vec::new());
        while index.next < keys.len() {
            let looked = index.upcoming(AHEAD, &mut places);
            index.pass(looked);
            taken.extend(places.iter().map(|at| index.spot(*at).hash));
        }

        let mut states = StateDeclarations::new();
        states.key::<u64>();
        let handle = states.value::<u64>("count");
        let groups = KeyGroupRange { start: 0, end: 1 };
        let mut state = KeyedState::new(states.finish().unwrap(), groups, CheckpointId(1));
        let place = state.place_of("count").unwrap();
        state.table_of(place).make_room(KeyGroup(0), keys.len());
        for key in &keys {
            let key = KeyRef { hash: key_hash(key), group: KeyGroup(0), bytes: key };
            state.value_table(handle).set(key, 1);
        }
        let lying: Vec<_> = state.value_table(handle).hashes().collect();
        // Where one was put behind its place, since that was taken, it is a little late.
        let place = |hash: &u64| lying.iter().position(|it| it == hash).unwrap();
        let late = taken.windows(2).filter(|pair| place(&pair[0]) > place(&pair[1])).count();
        assert!(taken.len() == keys.len() && late < keys.len() / 5, "{late} of {} come too late", keys.len());
    }
}
