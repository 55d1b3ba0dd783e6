//! Snapshots that were written once and are read for ever after: `engine/tests/golden` holds a checkpoint directory and a
//! savepoint of this format version, with every kind of state, made by `engine/examples/golden_snapshots.rs`. Whatever
//! changes, each part of them must be read as it was, and a job must go on with them at any parallelism.
//!
//! A new format version gets golden files of its own beside these. These are never made anew once they are released.

#![allow(clippy::disallowed_methods, reason = "reads the golden files from the real disk")]

mod dump;
mod job;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use checkpoint::{
    history::{self, Records},
    manifest::{self, Manifest},
    snapshots,
};
use env::{Env, Store, sim::Control};
use statebackend::{RunSet, StateSummary, summarize};
use tidegate_engine::cluster::attempt::Ask;
use types::RecordNumber;

use self::job::{NUMBERS, OF_SAVEPOINT, Output, Row, STAGES, expected, job};
use crate::world::{simulate, start};

/// From the crate's directory, in which cargo runs tests.
const GOLDEN: &str = "tests/golden";

/// The files of a directory by their paths below it.
fn files(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), &format!("{path}/"), found);
        } else {
            found.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

/// Puts a golden directory on the simulated disk.
async fn load(env: &Env, name: &str) -> Arc<dyn Store> {
    let mut found = BTreeMap::new();
    files(&Path::new(GOLDEN).join(name), "", &mut found);
    let store = env.open_store(&format!("/{name}")).unwrap();
    for (path, bytes) in found {
        store.put(&path, vec![bytes.into()]).await.unwrap();
    }
    store
}

#[test]
fn every_part_is_read_as_it_was_written() {
    for name in ["checkpoints", "savepoint"] {
        simulate(async |_, env| {
            let store = load(&env, name).await;
            let found = dump::dump(&env, store).await;
            let expected = fs::read_to_string(format!("{GOLDEN}/{name}.txt")).unwrap();
            let differing = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
            assert_eq!(differing, None, "{name}: found, expected");
            assert_eq!(found.len(), expected.len(), "{name}");
        });
    }
}

/// Otherwise the other tests would say little.
#[test]
fn there_is_something_of_everything() {
    simulate(async |_, env| {
        let store = load(&env, "checkpoints").await;
        let report = snapshots::verify(&env, store.clone(), &mut |_| {}).await.unwrap();
        let mut kinds = BTreeSet::new();
        for number in 0..report.records as u64 {
            let record = Records::new(&env, store.clone()).read(RecordNumber(number)).await.unwrap().unwrap();
            kinds.insert(record.kind.name());
        }
        let all = ["attempt started", "checkpoint completed", "savepoint completed", "sinks confirmed"];
        assert_eq!(kinds, all.into());
        let standing = report.standing.unwrap();
        assert_eq!((standing.completed.len(), standing.unconfirmed.len()), (4, 1));

        let newest = newest(&env, &store).await;
        let of = |uid: &str| newest.operators.iter().find(|it| it.uid.as_str() == uid).unwrap();
        let kinds: Vec<_> = of("everything").states.iter().map(|state| &*state.kind).collect();
        let plain = ["value", "map", "reducing", "aggregating"];
        let expiring = ["list, event-time ttl", "map, processing-time ttl", "list", "value, event-time ttl"];
        assert_eq!(kinds, [plain, expiring].concat());
        for subtask in &of("everything").subtasks {
            assert!(subtask.runs.len() >= 4, "{} runs", subtask.runs.len());
            assert!(subtask.runs.iter().skip(1).all(|run| run.tombstones > 0));
            let lives =
                summarize(&env, &*store, RunSet::new(&subtask.runs, &subtask.expiry_clocks().unwrap()))
                    .await
                    .unwrap()
                    .states;
            let names = [
                "count",
                "digits",
                "longest",
                "mean",
                "noted",
                "often",
                "recent",
                "seen",
                "timers-event",
                "timers-processing",
            ];
            assert!(lives.keys().eq(names), "{lives:?}");
            assert!(lives["recent"].entries > lives["recent"].keys, "lists of several elements");
        }
        let lists: Vec<_> = of("keep").subtasks.iter().flat_map(|subtask| &subtask.lists).collect();
        assert!(lists.len() == 4 && lists.iter().all(|list| !list.elements.is_empty()), "{lists:?}");
        let sums: Vec<_> = of("rules").subtasks.iter().flat_map(|subtask| &subtask.lists).collect();
        assert!(sums.len() == 1 && sums[0].is_broadcast() && sums[0].elements.len() == 7, "{sums:?}");
        assert!(of("out").subtasks.iter().all(|subtask| subtask.prepared.len() == 1));
        assert!(of("numbers").subtasks.iter().all(|subtask| !subtask.lists.is_empty()));
    });
}

async fn newest(env: &Env, store: &Arc<dyn Store>) -> Manifest {
    let newest = history::open(env, store.clone()).await.unwrap().unwrap();
    let file = &newest.standing.completed.last().unwrap().manifest;
    manifest::read(env, &**store, file).await.unwrap()
}

/// What does not depend on the parallelism: counts and digests of keyed state, elements of lists (those of union lists once).
async fn content(env: &Env, store: &Arc<dyn Store>, manifest: &Manifest) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for operator in &manifest.operators {
        let mut summary = StateSummary::default();
        let mut lists: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
        for subtask in &operator.subtasks {
            summary.add(
                &summarize(env, &**store, RunSet::new(&subtask.runs, &subtask.expiry_clocks().unwrap()))
                    .await
                    .unwrap(),
            );
            for list in subtask.lists.iter().filter(|list| operator.is_list_state(list)) {
                lists.entry(&list.name).or_default().extend(list.elements.iter().map(<[u8]>::to_vec));
            }
        }
        for (name, mut elements) in lists {
            elements.sort();
            if name == "known" {
                elements.dedup();
            }
            found.insert(format!("{} {name}", operator.uid), format!("{elements:?}"));
        }
        found.insert(operator.uid.to_string(), format!("{summary:?}"));
    }
    found
}

/// Starts the job with what the golden files hold, and takes it to its end. The rows must be all that follow the first
/// `before` numbers, and all timers.
async fn goes_on(sim: &Control, env: &Env, settings: &[(&str, &str)], golden: &Manifest, before: u64) {
    let (gate, output) = (Arc::new(AtomicU64::new(0)), Output::default());
    let own = env.open_store("/checkpoints").unwrap();
    let from = if golden.kind == manifest::SnapshotKind::Savepoint { "/savepoint" } else { "/checkpoints" };
    let expected_content = content(env, &env.open_store(from).unwrap(), golden).await;
    let (process, handle) = start(sim, job(settings, &gate, &output)).await.unwrap();
    env.sleep(Duration::from_secs(1)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    // Nothing came yet: what was restored is what is now written.
    let restored = newest(env, &own).await;
    assert!(restored.checkpoint > golden.checkpoint, "it is another checkpoint");
    assert_eq!(content(env, &own, &restored).await, expected_content, "{settings:?}");
    gate.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(handle.join().await.unwrap().how, "finished");
    process.kill();
    let follows = |row: &Row| row.number.is_none_or(|number| number >= before);
    let expected: BTreeMap<_, _> = expected().into_iter().filter(|(row, _)| follows(row)).collect();
    assert!(expected.keys().filter(|row| row.number.is_none()).count() > 100, "timers fire");
    let found = output.rows();
    let differing = found.iter().zip(&expected).find(|(found, expected)| found != expected);
    assert_eq!(differing, None, "{settings:?}: found, expected");
    assert_eq!(found.len() as u64, expected.len() as u64, "{settings:?}");
    assert!(found.len() as u64 > NUMBERS - before);
}

#[test]
fn a_job_goes_on_with_the_golden_checkpoint_at_any_parallelism() {
    for parallelism in ["1", "2", "3", "8"] {
        simulate(async |sim, env| {
            let store = load(&env, "checkpoints").await;
            let golden = newest(&env, &store).await;
            let settings = [("checkpoints.url", "/checkpoints"), ("parallelism", parallelism)];
            // What the last checkpoint has pending is committed by the start.
            goes_on(sim, &env, &settings, &golden, STAGES[OF_SAVEPOINT]).await;
        });
    }
}

#[test]
fn a_job_starts_from_the_golden_savepoint_at_any_parallelism() {
    for parallelism in ["1", "2", "3", "8"] {
        simulate(async |sim, env| {
            let store = load(&env, "savepoint").await;
            let golden = store.get("manifest").await.unwrap().unwrap();
            let golden = manifest::decode("manifest", &golden).unwrap();
            let settings =
                [("checkpoints.url", "/checkpoints"), ("parallelism", parallelism), ("from", "/savepoint")];
            goes_on(sim, &env, &settings, &golden, STAGES[OF_SAVEPOINT]).await;
        });
    }
}
