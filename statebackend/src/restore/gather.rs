//! Entries on their way from blocks into tables in memory.
//!
//! Values are not put into tables: of each is kept where it stands in its block, and when all runs are read, what the newest
//! of them say of each key [waits](crate::table::Waiting) until that is asked for. Lists, maps and timers are restored at once.

use std::collections::{BTreeMap, btree_map::Entry};

use types::{Error, KeyGroup, KeyGroupRange, Result, Run, key_hash};

use super::{RestoreStats, check_value};
use crate::{
    run::{
        block::Home,
        entry::EntryKind,
        reader::{PlainBlock, Window},
    },
    table::{Blocks, Index, KeyedState, Spot, TablePlace, Waiting},
};

/// How many entries of newer runs are put over older ones at once, and those of a key group.
const PUT_AT_ONCE: usize = 1 << 18;

/// A run that is being restored.
pub(super) struct Source {
    pub(super) run: Run,
    /// Where the entries of each of its states go; `None` for those that are left out.
    pub(super) places: Vec<Option<TablePlace>>,
    /// The key groups that are wanted of it.
    pub(super) wanted: KeyGroupRange,
}

/// Tables that are being filled, and what will wait beside them.
pub(super) struct Gathered {
    pub(super) state: KeyedState,
    pub(super) stats: RestoreStats,
    /// The blocks in which the entries stand.
    blocks: Blocks,
    /// Those that came last, in the order of the run.
    spots: Vec<Spot>,
    /// Where each state and key group of theirs begins. The last one may go on in the next block.
    parts: Vec<((TablePlace, KeyGroup), usize)>,
    /// What has come.
    groups: Groups,
}

/// By state and key group.
type Groups = BTreeMap<(TablePlace, KeyGroup), Group>;

/// The entries of a state and key group.
struct Group {
    /// Those of the oldest run that has any.
    index: Index,
    /// Those of newer ones, oldest first.
    newer: Vec<Spot>,
}

impl Gathered {
    pub(super) fn new(state: KeyedState, stats: RestoreStats) -> Self {
        let (blocks, groups) = (Blocks::default(), BTreeMap::new());
        Self { state, stats, blocks, spots: Vec::new(), parts: Vec::new(), groups }
    }

    /// Takes the entries of a window.
    pub(super) fn take(&mut self, window: Window, source: &Source) -> Result<()> {
        window.into_blocks().try_for_each(|block| self.block(block?, source))
    }

    /// The run is at its end.
    pub(super) fn finish_run(&mut self) {
        self.sort_parts(self.parts.len());
    }

    fn block(&mut self, mut block: PlainBlock, source: &Source) -> Result<()> {
        let number = self.blocks.next()?;
        // Where its entries go, asked once for those that belong together.
        let mut current: Option<(Home, Option<(TablePlace, bool)>)> = None;
        let (mut entries, mut waiting, mut checked) = (0, 0, None);
        loop {
            let located = block.walk.next(&block.plain, block.bounds);
            let Some((home, entry, bytes)) = located.map_err(|error| block.blame(error))? else { break };
            let goes = match current {
                Some((same, goes)) if same == home => goes,
                _ => {
                    // Its state may not count any more.
                    let place =
                        source.places[usize::from(home.state)].filter(|_| source.wanted.contains(home.group));
                    let goes = place.map(|place| (place, self.state.may_wait(place)));
                    if let Some((place, true)) = goes {
                        self.begin_part((place, home.group));
                    }
                    current = Some((home, goes));
                    goes
                }
            };
            entries += 1;
            let Some((place, waits)) = goes else { continue };
            // The first value of each state in each block stands for the others.
            if entry.kind == EntryKind::Put && checked != Some(home.state) {
                checked = Some(home.state);
                check_value(&mut self.state, place, &source.run, entry.value)
                    .map_err(|error| block.blame(error))?;
            }
            self.stats.entries += 1;
            let hash = key_hash(entry.key);
            if !waits {
                let restored = self.state.restore_entry(place, hash, home.group, &entry);
                restored.map_err(|error| block.blame(error))?;
                continue;
            }
            if entry.kind == EntryKind::Clear {
                return Err(block.blame(Error::corrupt("a value state holds a range tombstone")));
            }
            let at = (block.walk.position() - bytes.len()) as u32;
            self.spots.push(Spot::new(hash, number, at, entry.is_tombstone()));
            let before = self.spots.len() - 1;
            // Most entries are like this one, and the value that stands for them is checked.
            if checked == Some(home.state) {
                let mut at = block.walk.position() as u32;
                while let Some(short) = block.walk.next_short(&block.plain) {
                    self.spots.push(Spot::new(key_hash(short.key), number, at, false));
                    at = short.end as u32;
                }
            }
            let came = (self.spots.len() - before) as u32;
            (entries, waiting) = (entries + came - 1, waiting + came);
            self.stats.entries += u64::from(came - 1);
        }
        if waiting > 0 {
            self.blocks.hold(block, entries, waiting);
        }
        // Not before: their keys stand in the block.
        self.sort_parts(self.parts.len().saturating_sub(1));
        Ok(())
    }

    /// What comes next belongs to this state and key group, and may go on with what came before.
    fn begin_part(&mut self, home: (TablePlace, KeyGroup)) {
        if self.parts.last().is_none_or(|(last, _)| *last != home) {
            self.parts.push((home, self.spots.len()));
        }
    }

    /// Puts the first parts in order, of which no more will come from this run: while they are in the processor's caches.
    fn sort_parts(&mut self, count: usize) {
        let Self { blocks, spots, parts, groups, .. } = self;
        let ends = parts.iter().skip(1).map(|(_, begin)| *begin).chain([spots.len()]);
        let mut done = 0;
        for ((home, begin), end) in parts.iter().zip(ends).take(count) {
            let part = &spots[*begin..end];
            match groups.entry(*home) {
                Entry::Occupied(mut group) => group.get_mut().newer.extend_from_slice(part),
                Entry::Vacant(none) => {
                    none.insert(Group { index: Index::new(part, blocks), newer: Vec::new() });
                }
            }
            done = end;
        }
        parts.drain(..count);
        parts.iter_mut().for_each(|(_, begin)| *begin -= done);
        spots.drain(..done);
    }

    /// All runs were read.
    pub(super) fn into_merging(self) -> Merging {
        let Self { state, stats, blocks, groups, .. } = self;
        let waiting = Waiting::new(state.groups());
        Merging { state, stats, blocks, waiting, groups }
    }
}

/// Entries of newer runs on their way over those of older ones.
pub(super) struct Merging {
    state: KeyedState,
    stats: RestoreStats,
    blocks: Blocks,
    waiting: Waiting,
    groups: Groups,
}

impl Merging {
    /// Goes on for a while. Returns whether something is left.
    pub(super) fn go_on(&mut self) -> bool {
        let mut done = 0;
        while done < PUT_AT_ONCE
            && let Some(((place, group), Group { mut index, newer })) = self.groups.pop_first()
        {
            index.put(&newer, &mut self.blocks);
            let came = self.waiting.add(place, group, index);
            self.state.count_waiting(place, came);
            done += newer.len();
        }
        !self.groups.is_empty()
    }

    pub(super) fn finish(self) -> (KeyedState, RestoreStats) {
        let Self { mut state, stats, blocks, waiting, .. } = self;
        state.wait(waiting, blocks);
        (state, stats)
    }
}
