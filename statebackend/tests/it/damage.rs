//! Damaged run files: every changed byte is noticed, and none makes a reader panic or give wrong state.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use env::{Env, Store};
use statebackend::{RunCompression, RunSet, StateSummary, copy_canonical, restore, verify_file, verify_run};
use types::{CheckpointId, Digest, ErrorKind, KeyGroupRange, Run, SnapshotFile};

use crate::fixture::{Context, MAX, Subtask, declare, identity, key, simulated};

/// A run of several blocks.
async fn large_run(store: &dyn Store) -> Run {
    let (_, handles) = declare();
    let mut subtask = Subtask::new(MAX.all(), 0, CheckpointId(1));
    for number in 0..3000_u64 {
        let key = key(&format!("key number {number}"));
        let mut ctx = Context { state: &mut subtask.state, key: &key };
        handles.value.set(&mut ctx, number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
        handles.map.put(&mut ctx, &(number as u32), number).unwrap();
    }
    subtask.state.flip(CheckpointId(1));
    subtask.seal(store, 500).await;
    subtask.runs.remove(0)
}

async fn restored(env: &Env, store: &dyn Store, run: &Run) -> types::Result<()> {
    let mut into = Subtask::new(MAX.all(), 0, CheckpointId(2)).state;
    restore(env, store, std::slice::from_ref(run), &mut into).await.map(drop)
}

async fn summary(env: &Env, store: &dyn Store, run: &Run) -> types::Result<StateSummary> {
    let copied = copy_canonical(
        env,
        store,
        RunSet::unexpired(std::slice::from_ref(run)),
        store,
        "copy",
        identity(0, 9),
        RunCompression::Zstd,
    )
    .await;
    store.delete("copy").await.unwrap();
    copied.map(|(_, summary)| summary)
}

/// Everything that is not a block: header, schema, index, footer.
#[test]
fn every_changed_byte_outside_of_blocks_is_noticed() {
    simulated(1, async |env: Env, store: Arc<dyn Store>| {
        let run = large_run(&*store).await;
        let path = run.file.path.clone();
        let good = store.get(&path).await.unwrap().unwrap().to_vec();
        let footer = good.len() - 256;
        let schema_at = u64::from_le_bytes(good[footer + 80..footer + 88].try_into().unwrap()) as usize;
        for place in (0..16).chain(schema_at..good.len()) {
            let mut bad = good.clone();
            bad[place] ^= 1 << (place % 8);
            store.put(&path, vec![bad.into()]).await.unwrap();
            for result in [
                restored(&env, &*store, &run).await,
                verify_run(&env, &*store, &run, false).await.map(drop),
                summary(&env, &*store, &run).await.map(drop),
            ] {
                let error = result.expect_err(&format!("byte {place} was changed and nobody noticed"));
                assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {place}: {error}");
                assert!(error.message().contains(&path), "{error}");
            }
        }
    });
}

/// Random bits in blocks.
#[test]
fn every_changed_bit_in_a_block_is_noticed() {
    simulated(2, async |env: Env, store: Arc<dyn Store>| {
        let run = large_run(&*store).await;
        let path = run.file.path.clone();
        let good = store.get(&path).await.unwrap().unwrap().to_vec();
        let footer = good.len() - 256;
        let schema_at = u64::from_le_bytes(good[footer + 80..footer + 88].try_into().unwrap()) as usize;
        let expected = summary(&env, &*store, &run).await.unwrap();
        let mut state = 0x1234_5678_9abc_def1_u64;
        for _ in 0..300 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let place = 16 + (state as usize) % (schema_at - 16);
            let mut bad = good.clone();
            bad[place] ^= 1 << ((state >> 32) % 8);
            store.put(&path, vec![bad.into()]).await.unwrap();
            let error = restored(&env, &*store, &run).await.expect_err("a changed bit went unnoticed");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "bit in byte {place}: {error}");
            match summary(&env, &*store, &run).await {
                Ok(found) => assert_eq!(found, expected),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    });
}

#[test]
fn cut_lengthened_missing_and_swapped_files_are_noticed() {
    simulated(3, async |env: Env, store: Arc<dyn Store>| {
        let run = large_run(&*store).await;
        let path = run.file.path.clone();
        let good = store.get(&path).await.unwrap().unwrap().to_vec();
        let mut longer = good.clone();
        longer.push(0);
        let cuts = [0, 1, 15, 16, 255, 256, 300, good.len() / 2, good.len() - 1];
        for bad in cuts.into_iter().map(|len| good[..len].to_vec()).chain([longer]) {
            store.put(&path, vec![bad.into()]).await.unwrap();
            for result in
                [restored(&env, &*store, &run).await, verify_run(&env, &*store, &run, true).await.map(drop)]
            {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
        store.delete(&path).await.unwrap();
        let error = restored(&env, &*store, &run).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("missing"), "{error}");

        // The same bytes under the identity of another run.
        store.put(&path, vec![good.into()]).await.unwrap();
        let swapped = Run { identity: identity(1, 1), ..run.clone() };
        let error = restored(&env, &*store, &swapped).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("identity"), "{error}");
        restored(&env, &*store, &run).await.unwrap();
    });
}

/// After a change of parallelism two subtasks use one file: its bytes are read once, and each use is compared with it.
#[test]
fn all_uses_of_a_file_are_verified_and_its_bytes_are_told_once() {
    simulated(5, async |env: Env, store: Arc<dyn Store>| {
        let run = large_run(&*store).await;
        let half = |start, end| Run { groups: KeyGroupRange { start, end }, ..run.clone() };
        let (left, right) = (half(0, MAX.0 / 2), half(MAX.0 / 2, MAX.0));
        for deep in [false, true] {
            let told = AtomicU64::new(0);
            let progress = |bytes| {
                told.fetch_add(bytes, Ordering::Relaxed);
            };
            let report = verify_file(&env, &*store, &[&left, &right], deep, &progress).await.unwrap();
            assert_eq!((report.bytes, told.into_inner()), (run.file.len, run.file.len));
            assert!(report.blocks > 1, "{report:?}");
            assert_eq!(report.entries, if deep { run.entries } else { 0 });
            let swapped = Run { identity: identity(1, 1), ..right.clone() };
            let error = verify_file(&env, &*store, &[&left, &swapped], deep, &|_| {}).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("identity"), "{error}");
            let file = SnapshotFile { digest: Digest(1), ..right.file.clone() };
            let other = Run { file, ..right.clone() };
            let error = verify_file(&env, &*store, &[&left, &other], deep, &|_| {}).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.message().contains("two files"), "{error}");
        }
    });
}

/// All checksums are right: it is no damage, and the message says what to do.
#[test]
fn a_run_of_a_newer_version_says_so() {
    simulated(4, async |env: Env, store: Arc<dyn Store>| {
        let run = large_run(&*store).await;
        let path = run.file.path.clone();
        let good = store.get(&path).await.unwrap().unwrap().to_vec();
        let footer = good.len() - 256;
        // The version stands behind the magic of header and footer, a checksum at the end of each.
        for (version_at, summed) in [(8, 0..12), (footer + 8, footer..good.len() - 4)] {
            let mut newer = good.clone();
            newer[version_at..version_at + 4].copy_from_slice(&2_u32.to_le_bytes());
            let crc = crc32fast::hash(&newer[summed.clone()]);
            newer[summed.end..summed.end + 4].copy_from_slice(&crc.to_le_bytes());
            let file = SnapshotFile { digest: Digest::of(&newer), ..run.file.clone() };
            let run = Run { file, ..run.clone() };
            store.put(&path, vec![newer.into()]).await.unwrap();
            for result in [
                restored(&env, &*store, &run).await,
                verify_run(&env, &*store, &run, false).await.map(drop),
                summary(&env, &*store, &run).await.map(drop),
            ] {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let said = "was written by a newer version (run format 2, this program reads up to 1): use that program";
                let message = error.to_string();
                assert!(message.starts_with(&path) && message.contains(said), "{message}");
                assert!(!message.contains('\n'), "{message}");
            }
        }
    });
}
