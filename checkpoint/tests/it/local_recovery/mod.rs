//! Local recovery without an engine: which copies stay (`plan`, against every order of events), and a store with copies in
//! front of it, which gives the bytes of the store whatever becomes of the copies (`reads`), of the process (`deaths`), of other
//! jobs (`others`) and of the disk (`hanging`).

mod deaths;
mod hanging;
mod others;
mod plan;
mod reads;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use env::{Env, Files, Store};
use tidegate_checkpoint::{
    local_recovery::{LocalRecovery, LocalStore},
    storage::paths,
};
use types::{
    AttemptId, CheckpointId, Digest, JobId, KeyGroupRange, Run, RunIdentity, SnapshotFile, SubtaskIndex, Uid,
};

const PIECE: usize = 256 << 10;

fn run_path(attempt: u64, number: u64) -> String {
    paths::run(AttemptId(attempt), &Uid::new("it").unwrap(), SubtaskIndex(0), number)
}

/// Bytes that are nowhere alike.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

fn run(path: &str, content: &[u8]) -> Run {
    let operator = Uid::new("it").unwrap();
    let identity =
        RunIdentity { job: JobId(1), attempt: AttemptId(0), operator, subtask: SubtaskIndex(0), number: 1 };
    let file = SnapshotFile { path: path.to_owned(), len: content.len() as u64, digest: Digest::of(content) };
    let groups = KeyGroupRange { start: 0, end: 1 };
    Run { file, identity, groups, without: Vec::new(), entries: 1, tombstones: 0, plain_bytes: 1 }
}

/// A job's copies, in an attempt that restores `runs`.
async fn begun(env: &Env, attempt: u64, runs: &[Run]) -> LocalRecovery {
    let local = LocalRecovery::new(env, "job", PathBuf::from("/local"), 64 << 20);
    let named = runs.iter().map(|run| &*run.file.path);
    local.begin(JobId(1), AttemptId(attempt), CheckpointId(1), named).await;
    local
}

/// Reads ranges all over a file, each as the store has it.
async fn assert_reads(store: &LocalStore, path: &str, content: &[u8]) {
    let len = content.len() as u64;
    let edges = [
        0,
        1,
        len / 2,
        len.saturating_sub(1),
        len,
        len + 1,
        PIECE as u64 - 1,
        PIECE as u64,
        PIECE as u64 + 1,
    ];
    for from in edges {
        for until in edges.into_iter().filter(|until| *until >= from) {
            let expected = &content[from.min(len) as usize..until.min(len) as usize];
            let found = store.get_range(path, from..until).await.unwrap().unwrap();
            assert!(found == expected, "{from}..{until} of {len}");
        }
    }
}

/// What the jobs of this root have as copies, by the names of their directories.
fn directories(files: &dyn Files) -> BTreeMap<PathBuf, usize> {
    let found = files.read_dir(Path::new("/local")).unwrap();
    let directories = found.into_iter().filter(|path| path.extension().is_none());
    directories.map(|path| (path.clone(), files.read_dir(&path).unwrap().len())).collect()
}
