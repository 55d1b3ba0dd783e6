//! What lives in runs, entry by entry and in order, merged from all of them: what migrations write anew, and what the
//! command line shows and compares.

use std::sync::Arc;

use env::{Env, Store};
use types::{KeyGroup, Result};

use super::{
    block::Home,
    driver::{Driver, RunSet},
    entry::{Entry, decode},
    list_chunk,
    merge::Sink,
    select::{KeySelection, Selection},
};
use crate::declare::{StateKind, StateSpec};

/// A live entry, as [`scan`] shows it.
#[derive(Clone, Copy, Debug)]
pub struct LiveEntry<'a> {
    /// Its state.
    pub state: &'a StateSpec,
    /// Its key group.
    pub group: KeyGroup,
    /// Key, place below the key, and value. Never a tombstone.
    pub entry: Entry<'a>,
}

impl<'a> LiveEntry<'a> {
    /// Its encoded values: of a list's chunk each element, in order, otherwise the one value. Ends after the first error.
    pub fn values(self) -> impl Iterator<Item = Result<&'a [u8]>> {
        let value = self.entry.value;
        let (one, many) = match self.state.kind {
            StateKind::List => (None, Some(list_chunk::elements(value))),
            _ => (Some(Ok(value)), None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// Calls `visit` with every entry that lives in all runs of one or more subtasks of an operator, by state name, key group, key, and place below the key.
///
/// # Errors
/// As [`merge`](super::merge), and the errors of `visit`.
pub async fn scan(
    env: &Env,
    store: &dyn Store,
    of: RunSet<'_>,
    mut visit: impl FnMut(LiveEntry<'_>) -> Result<()>,
) -> Result<()> {
    let mut scan = Scan::open(store, of).await?;
    while let Some(batch) = scan.next(env, store).await? {
        batch.iter().try_for_each(&mut visit)?;
    }
    Ok(())
}

/// A [`scan`] that comes in batches, which can be worked on elsewhere, and in the pace of whoever asks for them. Holds a
/// window of each run and a batch, however large the runs are.
pub struct Scan {
    /// `None` when all is merged.
    driver: Option<Driver>,
    specs: Arc<[Arc<StateSpec>]>,
    keys: KeySelection,
    progress: (u64, u64),
}

impl Scan {
    /// Everything that lives in all runs of one or more subtasks of an operator.
    ///
    /// # Errors
    /// As [`merge`](super::merge).
    async fn open(store: &dyn Store, of: RunSet<'_>) -> Result<Self> {
        Ok(Self::new(Driver::open(store, of, true).await?, KeySelection::All))
    }

    /// What lives of `selection` in them. Reads only blocks that may hold some of it.
    ///
    /// # Errors
    /// As [`merge`](super::merge).
    pub async fn select(store: &dyn Store, of: RunSet<'_>, selection: &Selection) -> Result<Self> {
        Ok(Self::new(Driver::select(store, of, selection).await?, selection.keys.clone()))
    }

    fn new(driver: Driver, keys: KeySelection) -> Self {
        let specs = driver.schema().states.iter().map(|state| state.spec.clone()).collect();
        let progress = driver.progress();
        Self { driver: Some(driver), specs, keys, progress }
    }

    /// The next entries; `None` when there are no more.
    ///
    /// # Errors
    /// As [`merge`](super::merge).
    pub async fn next(&mut self, env: &Env, store: &dyn Store) -> Result<Option<LiveBatch>> {
        let Some(driver) = self.driver.take() else { return Ok(None) };
        let bytes = Vec::with_capacity(BATCH_LEN + BATCH_SPARE);
        let batch = Batch { keys: self.keys.clone(), bytes, entries: Vec::new() };
        let (driver, entries, done) = driver.step(env, store, batch).await?;
        self.progress = driver.progress();
        self.driver = (!done).then_some(driver);
        Ok(Some(LiveBatch { specs: self.specs.clone(), entries }))
    }

    /// How many stored bytes of blocks were read, and how many will have been at the end.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        self.progress
    }
}

/// Merged entries, in order.
pub struct LiveBatch {
    specs: Arc<[Arc<StateSpec>]>,
    entries: Batch,
}

impl LiveBatch {
    /// The entry at `index`, from 0 on; `None` behind the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<LiveEntry<'_>> {
        let &(home, begin) = self.entries.entries.get(index)?;
        let entry = decode(&self.entries.bytes[begin..]);
        Some(LiveEntry { state: &self.specs[usize::from(home.state)], group: home.group, entry })
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = LiveEntry<'_>> {
        (0..).map_while(|index| self.get(index))
    }
}

/// Entries on their way to a visitor.
struct Batch {
    keys: KeySelection,
    bytes: Vec<u8>,
    entries: Vec<(Home, usize)>,
}

/// The size of a batch in bytes: large enough that handing it over costs little beside merging it.
const BATCH_LEN: usize = 256 << 10;
/// Room for the last entry of most batches.
const BATCH_SPARE: usize = 4 << 10;

impl Sink for Batch {
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()> {
        if self.keys == KeySelection::All || self.keys.contains(decode(bytes).key) {
            self.entries.push((home, self.bytes.len()));
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_LEN
    }
}
