//! The readers of run files as [`Target`]s: verifying one entry by entry, and all that restores or merges one. Called by the
//! fuzzers in `fuzz/` and by `tests/hostile`.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use env::{Created, Env, Payload, Store, StoreEntry, StoreWriter, sim::Simulation};
use types::{
    AttemptId, CheckpointId, Digest, Error, ErrorKind, JobId, KeyGroupRange, Result, Run, RunIdentity,
    SnapshotFile, SubtaskIndex, Uid,
    hostile::{FREE_MEMORY, Target},
};

use crate::{
    KeyedState, RunCompression, RunSet, StateDeclarations, copy_canonical, restore,
    run::footer::{FOOTER_LEN, Footer, HEADER_LEN, Totals, header},
    scan,
    store::sorted_map::SortedMapStore,
    summarize, verify_run,
};

/// A run file, read as `verify --deep` does: every checksum, every block, every entry and value.
pub const RUN: Target = Target { name: "run", decode: verify, repair, longest: 1 << 19, free: FREE_MEMORY };

/// A run file, read as restores and merges do, which check blocks but not whether their entries are in order. Cells and
/// batches of merged entries take what they take.
pub const RUN_RESTORED: Target =
    Target { name: "run", decode: restore_all, repair, longest: 16 << 10, free: 16 << 20 };

fn verify(bytes: &[u8]) -> Result<()> {
    let run = describe(bytes);
    simulated(async |env| verify_run(&env, &OneFile(bytes), &run, true).await.map(drop))
}

/// Restores, scans, summarizes and copies. Whether one of these fails does not depend on what the others do.
fn restore_all(bytes: &[u8]) -> Result<()> {
    let run = describe(bytes);
    let runs = std::slice::from_ref(&run);
    let set = RunSet::unexpired(runs);
    simulated(async |env| {
        let file = &OneFile(bytes);
        let mut results = Vec::new();
        for is_stored in [false, true] {
            let mut states = StateDeclarations::new();
            states.key::<String>();
            states.value::<u64>("total");
            states.list::<String>("lines");
            states.map::<u32, u64>("by-hour");
            let groups = KeyGroupRange { start: 0, end: 8 };
            let declared = states.finish()?;
            let mut state = if is_stored {
                let store = Box::new(SortedMapStore::open());
                KeyedState::with_store(declared, groups, CheckpointId(1), store, 4)
            } else {
                KeyedState::new(declared, groups, CheckpointId(1))
            };
            let restored = restore(&env, file, runs, &mut state).await.map(drop);
            // Of another job's states: a shape or a kind may be anything.
            let is_other = restored.as_ref().is_err_and(|error| error.kind() == ErrorKind::IncompatibleState);
            results.push(if is_other { Ok(()) } else { restored });
        }
        results.push(scan(&env, file, set, |_| Ok(())).await);
        results.push(summarize(&env, file, set).await.map(drop));
        let identity = run.identity.clone();
        let to = env.open_store("memory:hostile")?;
        let copied = copy_canonical(&env, file, set, &*to, "copy", identity, RunCompression::None).await;
        to.delete("copy").await?;
        results.push(copied.map(drop));
        results.into_iter().collect()
    })
}

/// In a world of its own, without faults.
fn simulated(body: impl AsyncFnOnce(Env) -> Result<()>) -> Result<()> {
    thread_local! {
        static WORLD: Simulation = Simulation::new(1);
    }
    WORLD.with(|world| world.run(body))
}

/// The description that fits the file: that of its footer, if it has one.
fn describe(bytes: &[u8]) -> Run {
    let footer =
        bytes.len().checked_sub(FOOTER_LEN as usize).and_then(|at| Footer::decode(&bytes[at..]).ok());
    let file = SnapshotFile { path: PATH.to_owned(), len: bytes.len() as u64, digest: Digest::of(bytes) };
    let identity = footer.as_ref().map_or_else(nobody, |footer| footer.identity.clone());
    let nothing = (KeyGroupRange { start: 0, end: 0 }, Totals::default());
    let (groups, totals) = footer.map_or(nothing, |footer| (footer.groups, footer.totals));
    Run {
        file,
        identity,
        groups,
        without: Vec::new(),
        entries: totals.entries,
        tombstones: totals.tombstones,
        plain_bytes: totals.plain_bytes,
    }
}

fn nobody() -> RunIdentity {
    RunIdentity {
        job: JobId(0),
        attempt: AttemptId(0),
        operator: Uid::new("nobody").expect("a uid"),
        subtask: SubtaskIndex(0),
        number: 0,
    }
}

/// Where the footer names the schema section and the index section: offset, length, checksum.
const SCHEMA_AT: usize = 80;
const INDEX_AT: usize = 96;
const FILE_LEN_AT: usize = 112;
/// Where the index describes a block: offset, stored length, checksum, length of the first key.
const STORED_LEN_AT: usize = 8;
const CRC_AT: usize = 16;
const KEY_LEN_AT: usize = 29;
const META_LEN: usize = 33;

/// Makes all checksums right, and the places of sections and blocks: they lie one behind the other, as long as the footer
/// and the index say.
fn repair(bytes: &mut [u8]) {
    let (header_len, footer_len) = (HEADER_LEN as usize, FOOTER_LEN as usize);
    let Some(footer) = bytes.len().checked_sub(footer_len).filter(|at| *at >= header_len) else { return };
    bytes[..header_len].copy_from_slice(&header());
    let u32_at = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let [schema_len, index_len] = [SCHEMA_AT, INDEX_AT].map(|at| u32_at(bytes, footer + at + 8) as usize);
    let index = footer.checked_sub(index_len);
    let schema = index.and_then(|index| index.checked_sub(schema_len)).filter(|at| *at >= header_len);
    if let (Some(schema), Some(index)) = (schema, index) {
        repair_blocks(bytes, header_len..schema, index..footer);
        for (at, section, end) in [(SCHEMA_AT, schema, index), (INDEX_AT, index, footer)] {
            let crc = crc32fast::hash(&bytes[section..end]);
            bytes[footer + at..footer + at + 8].copy_from_slice(&(section as u64).to_le_bytes());
            bytes[footer + at + 12..footer + at + 16].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let file_len = bytes.len() as u64;
    bytes[footer..footer + 8].copy_from_slice(b"TGRUNEND");
    bytes[footer + FILE_LEN_AT..footer + FILE_LEN_AT + 8].copy_from_slice(&file_len.to_le_bytes());
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[footer..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
}

fn repair_blocks(bytes: &mut [u8], blocks: Range<usize>, index: Range<usize>) {
    let (mut block, mut meta) = (blocks.start, index.start);
    while meta + META_LEN <= index.end {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let next = meta + META_LEN + number(meta + KEY_LEN_AT) as usize;
        let is_last = next + META_LEN > index.end;
        let said = number(meta + STORED_LEN_AT) as usize;
        let end = if is_last { blocks.end } else { block.saturating_add(said).min(blocks.end) };
        let crc = crc32fast::hash(&bytes[block..end]);
        bytes[meta..meta + 8].copy_from_slice(&(block as u64).to_le_bytes());
        if is_last {
            let len = (end - block) as u32;
            bytes[meta + STORED_LEN_AT..meta + STORED_LEN_AT + 4].copy_from_slice(&len.to_le_bytes());
        }
        bytes[meta + CRC_AT..meta + CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        (block, meta) = (end, next);
    }
}

const PATH: &str = "hostile.run";

/// A store with one file, which is not copied.
struct OneFile<'a>(&'a [u8]);

#[async_trait]
impl Store for OneFile<'_> {
    fn url(&self) -> &str {
        "memory:one-file"
    }

    async fn create(&self, path: &str, _bytes: Payload) -> Result<Created> {
        Err(read_only(path))
    }

    async fn put(&self, path: &str, _bytes: Payload) -> Result<()> {
        Err(read_only(path))
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        Err(read_only(path))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        Ok((path == PATH).then(|| Bytes::copy_from_slice(self.0)))
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let within = |at: u64| usize::try_from(at).map_or(self.0.len(), |at| at.min(self.0.len()));
        let (begin, end) = (within(range.start), within(range.end));
        Ok((path == PATH).then(|| Bytes::copy_from_slice(self.0.get(begin..end).unwrap_or_default())))
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        Ok((path == PATH).then_some(self.0.len() as u64))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        Err(read_only(path))
    }

    async fn list(&self, _prefix: &str) -> Result<Vec<StoreEntry>> {
        Ok(vec![StoreEntry { path: PATH.to_owned(), len: self.0.len() as u64 }])
    }

    fn local_dir(&self) -> Option<std::path::PathBuf> {
        None
    }
}

fn read_only(path: &str) -> Error {
    Error::internal(format!("{path} cannot be changed: this store is one file"))
}
