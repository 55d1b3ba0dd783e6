//! Restoring with a store behind the tables: the runs are merged, and what lives is loaded in the order of the store's
//! keys, which is that of runs. Timers go into memory.

use env::{Env, FaultPoint, Store};
use types::{Error, Result, Run, key_hash};

use super::{RestoreStats, check_value, clip, places};
use crate::{
    declare::StateSpec,
    run::{
        driver::RunSet,
        live::{LiveBatch, LiveEntry, Scan},
        reader::RunReader,
    },
    store::SortedEntries,
    table::{KeyedState, TablePlace},
};

/// About how many bytes are loaded in one call: a file of RocksDB's.
const LOAD_LEN: usize = 32 << 20;
/// Of so many entries of a state, one value is checked.
const CHECK_EVERY: u64 = 1024;

pub(super) async fn load(
    env: &Env,
    store: &dyn Store,
    runs: &[Run],
    into: &mut KeyedState,
) -> Result<RestoreStats> {
    let wanted = clip(runs, into.groups());
    let mut stats = RestoreStats { runs: wanted.len(), ..RestoreStats::default() };
    for run in &wanted {
        let reader = RunReader::open(store, run).await?;
        places(run, &reader, into)?;
        let blocks = reader.windows(run.groups).into_iter().flatten();
        stats.bytes_read += blocks.map(|block| u64::from(reader.index[block].stored_len)).sum::<u64>();
    }
    let Some(newest) = wanted.last().cloned() else { return Ok(stats) };
    let clocks = into.expiry_clocks().unwrap_or_default();
    let mut loading = Loading::new(into.take(), stats, newest);
    let mut scan = Scan::open(store, RunSet::new(&wanted, &clocks)).await?;
    // One batch is loaded while the next one is merged: writing files waits for the disk.
    let mut batch = scan.next(env, store).await?;
    while let Some(this) = batch {
        let loaded = env.blocking("restore", move || loading.take(&this).map(|()| loading));
        let (loaded, next) = futures::join!(loaded, scan.next(env, store));
        (loading, batch) = (loaded??, next?);
        env.fault(FaultPoint::RestoreAmid)?;
    }
    loading = env.blocking("restore", move || loading.flush().map(|()| loading)).await??;
    *into = loading.state;
    Ok(loading.stats)
}

/// State on its way into the store.
struct Loading {
    state: KeyedState,
    stats: RestoreStats,
    /// The newest run: named where a value does not fit.
    newest: Run,
    /// The state whose entries are coming, where they go, and how many have come.
    current: Option<(String, Option<TablePlace>, u64)>,
    entries: SortedEntries,
    /// The greatest key that was loaded.
    last: Vec<u8>,
}

impl Loading {
    fn new(state: KeyedState, stats: RestoreStats, newest: Run) -> Self {
        let entries = SortedEntries::default();
        Self { state, stats, newest, current: None, entries, last: Vec::new() }
    }

    fn take(&mut self, batch: &LiveBatch) -> Result<()> {
        batch.iter().try_for_each(|live| self.entry(live))
    }

    fn entry(&mut self, live: LiveEntry<'_>) -> Result<()> {
        let (place, count) = self.place(live.state);
        let Some(place) = place else { return Ok(()) };
        if count.is_multiple_of(CHECK_EVERY) {
            check_value(&mut self.state, place, &self.newest, live.entry.value)?;
        }
        self.stats.entries += 1;
        if !self.state.is_stored(place) {
            return self.state.restore_entry(place, key_hash(live.entry.key), live.group, &live.entry);
        }
        self.state.note_loaded(place, live.group, &live.entry, &mut self.entries)?;
        if self.entries.bytes() >= LOAD_LEN { self.flush() } else { Ok(()) }
    }

    /// Where the entries of a state go, and how many have come before.
    fn place(&mut self, state: &StateSpec) -> (Option<TablePlace>, u64) {
        match &mut self.current {
            Some((name, place, count)) if *name == state.name => {
                *count += 1;
                (*place, *count)
            }
            _ => {
                let place = self.state.place_of(&state.name);
                self.current = Some((state.name.clone(), place, 0));
                (place, 0)
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(last) = self.entries.last_key() else { return Ok(()) };
        if !self.entries.ascend_after(&self.last) {
            return Err(self.out_of_order());
        }
        self.last = last.to_vec();
        self.state.bulk_load(&self.entries)?;
        self.entries.clear();
        Ok(())
    }

    /// Every checksum is right, and a store that is loaded with such entries may lose some.
    fn out_of_order(&self) -> Error {
        let Run { file, identity, .. } = &self.newest;
        Error::corrupt(format!(
            "{}, or a run before it of operator {}, holds entries that are out of order (`tidegate verify --deep` says \
             which): restore another checkpoint or savepoint",
            file.path, identity.operator
        ))
    }
}
