//! Restoring with a store behind the tables: the runs are merged, and what lives is loaded in the order of the store's
//! keys, which is that of runs. Timers go into memory.

use std::sync::Arc;

use env::{Env, FaultPoint, Store};
use types::{Error, Result, Run, key_hash};

use super::{
    RestoreStats, check_value, clip,
    load_batch::{BATCH_LEN, LoadBatch, Purpose, Target},
    places,
};
use crate::{
    run::{
        driver::{Driver, RunSet},
        reader::RunReader,
    },
    store::SortedEntries,
    table::KeyedState,
};

/// About how many bytes are loaded in one call, which makes one file of RocksDB or several. Few in tests.
const LOAD_LEN: usize = if cfg!(test) { 4 << 10 } else { 32 << 20 };

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
    let driver = Driver::open(store, RunSet::new(&wanted, &clocks), true).await?;
    let names = driver.schema().states.iter().map(|state| &state.spec.name);
    let targets: Arc<[_]> = names.map(|name| Target::of(into, name)).collect();
    let mut loading = Loading::new(into.take(), stats, newest);
    let (mut driver, mut batch, mut done) = driver.step(env, store, LoadBatch::new(targets.clone())).await?;
    let mut spare = LoadBatch::new(targets);
    while !done {
        // One batch is loaded while the next one is merged: writing files waits for the disk.
        let loaded = env.blocking("restore", move || loading.take(&batch).map(|()| (loading, batch)));
        spare.clear();
        let (loaded, stepped) = futures::join!(loaded, driver.step(env, store, spare));
        (loading, spare) = loaded??;
        (driver, batch, done) = stepped?;
        env.fault(FaultPoint::RestoreAmid)?;
    }
    loading = env.blocking("restore", move || loading.take(&batch).map(|()| loading)).await??;
    env.fault(FaultPoint::RestoreAmid)?;
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
    entries: SortedEntries,
    /// The greatest key that was loaded.
    last: Vec<u8>,
}

impl Loading {
    fn new(state: KeyedState, stats: RestoreStats, newest: Run) -> Self {
        Self { state, stats, newest, entries: SortedEntries::default(), last: Vec::new() }
    }

    fn take(&mut self, batch: &LoadBatch) -> Result<()> {
        for shown in batch.shown() {
            if shown.is_checked {
                check_value(&mut self.state, shown.place, &self.newest, shown.entry.value)?;
            }
            match shown.purpose {
                Purpose::Restore => {
                    self.stats.entries += 1;
                    let hash = key_hash(shown.entry.key);
                    self.state.restore_entry(shown.place, hash, shown.group, &shown.entry)?;
                }
                Purpose::Note => self.state.note_restored(shown.place, &shown.entry)?,
                Purpose::Check => {}
            }
        }
        self.stats.entries += batch.stored().len() as u64;
        if self.entries.bytes() >= LOAD_LEN / 8 {
            // There is much, so the memory for all at once: growing copies what is there.
            self.entries.reserve(LOAD_LEN + BATCH_LEN);
        }
        self.entries.append(batch.stored());
        if self.entries.bytes() >= LOAD_LEN { self.flush() } else { Ok(()) }
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

#[cfg(test)]
#[cfg(feature = "test-util")]
mod tests {
    use types::{
        AttemptId, CheckpointId, Digest, ErrorKind, JobId, KeyGroup, KeyGroupRange, RunIdentity,
        SnapshotFile, SubtaskIndex, Uid,
    };

    use super::*;
    use crate::{
        StateDeclarations,
        run::{Sink, block::Home, entry::push_put},
        store::sorted_map::SortedMapStore,
    };

    const GROUPS: KeyGroupRange = KeyGroupRange { start: 0, end: 8 };

    fn loading() -> (Loading, Arc<[Option<Target>]>) {
        let mut states = StateDeclarations::new();
        states.key::<String>();
        states.list::<String>("lines");
        states.value::<u64>("total");
        let declared = states.finish().unwrap();
        let store = Box::new(SortedMapStore::open());
        let state = KeyedState::with_store(declared, GROUPS, CheckpointId(1), store, 4);
        let names = ["dropped", "lines", "total", crate::declare::EVENT_TIMERS];
        let targets = names.iter().map(|name| Target::of(&state, name)).collect();
        let newest = Run {
            file: SnapshotFile { path: "some.run".to_owned(), len: 0, digest: Digest::of(&[]) },
            identity: RunIdentity {
                job: JobId(0),
                attempt: AttemptId(0),
                operator: Uid::new("counts").unwrap(),
                subtask: SubtaskIndex(0),
                number: 0,
            },
            groups: GROUPS,
            without: Vec::new(),
            entries: 0,
            tombstones: 0,
            plain_bytes: 0,
        };
        (Loading::new(state, RestoreStats::default(), newest), targets)
    }

    /// Puts values of "total" under the keys.
    fn push(batch: &mut LoadBatch, keys: impl IntoIterator<Item = u32>) {
        for key in keys {
            let mut entry = Vec::new();
            push_put(&mut entry, &key.to_be_bytes(), &[], &[7]);
            batch.push(Home { state: 2, group: KeyGroup(3) }, &entry).unwrap();
        }
    }

    /// Whichever batch or load the entries are in, here loads of four batches.
    #[test]
    fn entries_that_do_not_ascend_are_never_loaded() {
        let load = |parts: &[&[u32]]| {
            let (mut loading, targets) = loading();
            let mut batch = LoadBatch::new(targets);
            for keys in parts {
                push(&mut batch, keys.iter().copied());
                loading.take(&batch)?;
                batch.clear();
            }
            loading.flush()?;
            Ok::<_, Error>(loading.stats.entries)
        };
        let many: Vec<_> = (10..1000).collect();
        assert_eq!(load(&[&[1, 2], &many, &[1000]]).unwrap(), 993);
        for wrong in
            [&[&[2, 1][..]][..], &[&[1, 1]], &[&[1, 5], &[4]], &[&many, &[999]], &[&[11], &many, &[2000]]]
        {
            let error = load(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("some.run, or a run before it of operator counts"), "{error}");
        }
    }

    #[test]
    fn the_first_value_of_a_state_and_few_of_the_rest_are_checked() {
        let (_, targets) = loading();
        let mut batch = LoadBatch::new(targets);
        let mut checked = Vec::new();
        for begin in (0..3000).step_by(200) {
            push(&mut batch, begin..begin + 200);
            assert_eq!(batch.stored().len(), 200);
            assert!(batch.is_full());
            checked.extend(batch.shown().map(|shown| {
                assert!(shown.is_checked && shown.purpose == Purpose::Check);
                assert_eq!(
                    (shown.group, shown.entry.sub, shown.entry.value),
                    (KeyGroup(3), &[][..], &[7][..])
                );
                shown.entry.key.to_vec()
            }));
            batch.clear();
        }
        assert_eq!(checked, [0_u32, 1024, 2048].map(|key| key.to_be_bytes().to_vec()));
    }

    #[test]
    fn each_entry_goes_where_its_state_does() {
        let (_, targets) = loading();
        let mut batch = LoadBatch::new(targets);
        for state in 0..4 {
            for key in [b"a", b"b"] {
                let mut entry = Vec::new();
                push_put(&mut entry, key, b"sub", b"");
                batch.push(Home { state, group: KeyGroup(1) }, &entry).unwrap();
            }
        }
        let stored: Vec<_> = batch.stored().iter().map(|(key, _)| key.to_vec()).collect();
        assert_eq!(stored, [b"\0\0\0\x01asub", b"\0\0\0\x01bsub", b"\0\x01\0\x01asub", b"\0\x01\0\x01bsub"]);
        let shown: Vec<_> =
            batch.shown().map(|it| (it.purpose, it.entry.key, it.entry.sub, it.is_checked)).collect();
        let expected = [
            (Purpose::Note, &b"a"[..], &b"sub"[..], true),
            (Purpose::Note, b"b", b"sub", false),
            (Purpose::Check, b"a", b"sub", true),
            (Purpose::Restore, b"a", b"sub", true),
            (Purpose::Restore, b"b", b"sub", false),
        ];
        assert_eq!(shown, expected);
    }
}
