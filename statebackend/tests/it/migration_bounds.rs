//! A migration holds a piece of what it writes, however much it makes of what it reads.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use env::{Created, Payload, Store, StoreEntry, StoreWriter};
use statebackend::{Rewriting, RunCompression, StateDeclarations, plan_migration, verify_run};
use types::{CheckpointId, ExpiryClocks, ExpiryTimes, Result};

use crate::fixture::{Behind, Context, MAX, Subtask, identity, key, simulated};

const KEYS: u64 = 20_000;
/// What each value becomes: all of them together are 20 MB, and what one batch of them becomes is nearly all of it.
const TEXT: usize = 1_000;
/// A piece of a file, with the block that makes it one.
const PIECE: usize = 2 << 20;

/// Counts the pieces that are written to a store, and the longest one.
struct Watched {
    store: Arc<dyn Store>,
    pieces: Arc<AtomicUsize>,
    longest: Arc<AtomicUsize>,
}

struct WatchedWriter {
    writer: Box<dyn StoreWriter>,
    pieces: Arc<AtomicUsize>,
    longest: Arc<AtomicUsize>,
}

#[async_trait]
impl StoreWriter for WatchedWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.pieces.fetch_add(1, Ordering::Relaxed);
        self.longest.fetch_max(bytes.len(), Ordering::Relaxed);
        self.writer.write(bytes).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.writer.finish().await
    }
}

#[async_trait]
impl Store for Watched {
    fn url(&self) -> &str {
        self.store.url()
    }

    async fn create(&self, path: &str, bytes: Payload) -> Result<Created> {
        self.store.create(path, bytes).await
    }

    async fn put(&self, path: &str, bytes: Payload) -> Result<()> {
        self.store.put(path, bytes).await
    }

    async fn writer(&self, path: &str) -> Result<Box<dyn StoreWriter>> {
        let writer = self.store.writer(path).await?;
        let (pieces, longest) = (self.pieces.clone(), self.longest.clone());
        Ok(Box::new(WatchedWriter { writer, pieces, longest }))
    }

    async fn get(&self, path: &str) -> Result<Option<Bytes>> {
        self.store.get(path).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.store.get_range(path, range).await
    }

    async fn len(&self, path: &str) -> Result<Option<u64>> {
        self.store.len(path).await
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.store.delete(path).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StoreEntry>> {
        self.store.list(prefix).await
    }

    fn local_dir(&self) -> Option<PathBuf> {
        self.store.local_dir()
    }
}

/// A text that cannot be compressed much.
fn text(number: u64) -> Result<String> {
    let mut random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        char::from(b'!' + (random % 90) as u8)
    };
    Ok((0..TEXT).map(next).collect())
}

#[test]
fn what_is_made_of_small_values_is_written_piece_by_piece() {
    simulated(1, async |env, store| {
        let mut states = StateDeclarations::new();
        states.key::<String>();
        let value = states.value::<u64>("value");
        let declared = states.finish().unwrap();
        let mut subtask = Subtask::of(declared, &Behind::Nothing, MAX.all(), 0, CheckpointId(1));
        for number in 0..KEYS {
            let bytes = key(&number.to_string());
            value.set(&mut Context { state: &mut subtask.state, key: &bytes }, number).unwrap();
        }
        subtask.state.flip(CheckpointId(1));
        subtask.seal(&*store, 10_000).await;

        let mut states = StateDeclarations::new();
        states.key::<String>();
        states.migrating(text).value("value");
        let declared = states.finish().unwrap();
        let (pieces, longest) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let watched = Watched { store, pieces: pieces.clone(), longest: longest.clone() };
        let plan = plan_migration(&watched, &subtask.runs, &declared, MAX.all()).await.unwrap().unwrap();
        let how = Rewriting {
            clocks: &ExpiryClocks::default(),
            now: ExpiryTimes::BEGINNING,
            identity: identity(0, 0),
            path: "runs/migrated.run",
            compression: RunCompression::Zstd,
            call: |call| call(),
        };
        let runs = plan.rewrite(&env, &watched, how).await.unwrap();
        let [run] = &runs[..] else { panic!("{runs:?}") };
        assert_eq!(run.entries, KEYS);
        verify_run(&env, &*watched.store, run, true).await.unwrap();
        let (pieces, longest) = (pieces.load(Ordering::Relaxed), longest.load(Ordering::Relaxed));
        assert!(longest <= PIECE, "a piece of {longest} bytes");
        assert!(pieces >= 8, "{pieces} pieces for {} bytes", run.file.len);
    });
}
