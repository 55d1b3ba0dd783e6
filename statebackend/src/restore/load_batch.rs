//! Merged entries on their way into a store, each in the form that the store takes it: put together where they are merged,
//! while their bytes are at hand.

use std::sync::Arc;

use types::{KeyGroup, Result};

use crate::{
    run::{
        Sink,
        block::Home,
        entry::{Entry, EntryKind, Parts, decode},
    },
    store::SortedEntries,
    table::{KeyedState, TablePlace},
};

/// About how many bytes are merged in one step: a batch goes from thread to thread and back, which costs more than to show a
/// [scan](crate::run::Scan) in place. Few in tests, so that small states have several.
pub(super) const BATCH_LEN: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };
/// Room for the last entry of most batches.
const BATCH_SPARE: usize = 4 << 10;
/// Of so many entries of a state, one value is checked.
const CHECK_EVERY: u64 = 1024;

/// Where the entries of a state go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    place: TablePlace,
    /// The rank of the state's name in the store; `None` for what lies in memory.
    rank: Option<u16>,
    /// Whether the table has to see all that goes into the store.
    is_noted: bool,
}

impl Target {
    pub(super) fn of(state: &KeyedState, name: &str) -> Option<Self> {
        let place = state.place_of(name)?;
        Some(Self { place, rank: state.rank_in_store(place), is_noted: state.notes_restored(place) })
    }
}

/// An entry that is not only for the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    pub(super) place: TablePlace,
    pub(super) group: KeyGroup,
    pub(super) entry: Entry<'a>,
    /// Whether its value is one of those that are checked.
    pub(super) is_checked: bool,
    pub(super) purpose: Purpose,
}

/// What else an entry is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It goes into memory.
    Restore,
    /// It goes into the store, and its table takes note of it.
    Note,
    /// Nothing.
    Check,
}

/// Merged entries, in order.
#[derive(Debug)]
pub(super) struct LoadBatch {
    /// By the number of the state in the merge; `None` for what is left out.
    targets: Arc<[Option<Target>]>,
    stored: SortedEntries,
    /// Those of memory.
    bytes: Vec<u8>,
    shown: Vec<ShownAt>,
    /// The state whose entries are coming, and how many of them have come into this batch since it was made.
    current: Option<(u16, u64)>,
}

/// Where an entry is that is shown.
#[derive(Debug)]
struct ShownAt {
    home: Home,
    is_checked: bool,
    /// Where it begins in the bytes; of one that is stored its number, and the length of its key.
    at: usize,
    key_len: usize,
}

impl LoadBatch {
    pub(super) fn new(targets: Arc<[Option<Target>]>) -> Self {
        let mut stored = SortedEntries::default();
        stored.reserve(BATCH_LEN + BATCH_SPARE);
        Self { targets, stored, bytes: Vec::new(), shown: Vec::new(), current: None }
    }

    /// Those of the store.
    pub(super) fn stored(&self) -> &SortedEntries {
        &self.stored
    }

    /// Those that are not only for the store, in order.
    pub(super) fn shown(&self) -> impl Iterator<Item = Shown<'_>> {
        self.shown.iter().filter_map(|shown| {
            let &ShownAt { home, is_checked, at, key_len } = shown;
            let Target { place, rank, is_noted } = self.targets[usize::from(home.state)]?;
            let (entry, purpose) = if rank.is_none() {
                (decode(&self.bytes[at..]), Purpose::Restore)
            } else {
                let (place, value) = self.stored.place_and_value(at)?;
                let (key, sub) = place.split_at(key_len);
                let purpose = if is_noted { Purpose::Note } else { Purpose::Check };
                (Entry { kind: EntryKind::Put, key, sub, value }, purpose)
            };
            Some(Shown { place, group: home.group, entry, is_checked, purpose })
        })
    }

    /// Takes all entries out.
    pub(super) fn clear(&mut self) {
        self.stored.clear();
        self.bytes.clear();
        self.shown.clear();
    }

    /// Counts an entry, and says whether it is one of those whose values are checked: of each state the first, too.
    fn count(&mut self, state: u16) -> bool {
        let before = self.current.map_or(0, |(current, count)| if current == state { count } else { 0 });
        self.current = Some((state, before + 1));
        before.is_multiple_of(CHECK_EVERY)
    }
}

impl Sink for LoadBatch {
    #[inline]
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()> {
        let Some(target) = self.targets[usize::from(home.state)] else { return Ok(()) };
        let is_checked = self.count(home.state);
        if let Some(rank) = target.rank {
            let parts = Parts::of(bytes);
            if is_checked || target.is_noted {
                let (at, key_len) = (self.stored.len(), parts.key_len);
                self.shown.push(ShownAt { home, is_checked, at, key_len });
            }
            self.stored.push_parts(rank, home.group, parts);
        } else {
            self.shown.push(ShownAt { home, is_checked, at: self.bytes.len(), key_len: 0 });
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.stored.bytes() + self.bytes.len() >= BATCH_LEN
    }
}
