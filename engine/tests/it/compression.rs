//! `checkpoints.compression` decides how runs, merged runs and savepoints are stored, and nothing else: what an earlier
//! life of the job wrote in the other way is read and merged.

use std::time::Duration;

use env::{Env, sim::Control};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, simulate, start, with_settings},
};

/// How a run file and a frame of zstd begin.
const RUN: &[u8] = b"\x89TGRUN";
const FRAME: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

const KEYS: u64 = 500;

fn numbers() -> Numbers {
    Numbers::new(1, 6_000).paced(10, Duration::from_millis(10))
}

/// Counts so many keys that their runs compress, and merges early.
fn job(compression: &str, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "50ms"),
        ("checkpoints.compression", compression),
        ("snapshot.merge-fan-in", "2"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", numbers())
        .key_by(|number| number % KEYS)
        .count("count")
        .map(|(key, count)| Row(Kind::Count, key, count))
        .sink("out", ledger.clone());
    job
}

/// How many run files there are in a directory, and how many of them hold a frame of zstd.
async fn runs(env: &Env, url: &str) -> (usize, usize) {
    let store = env.open_store(url).unwrap();
    let (mut all, mut compressed) = (0, 0);
    for entry in store.list("").await.unwrap() {
        let bytes = store.get(&entry.path).await.unwrap().unwrap();
        if bytes.starts_with(RUN) {
            all += 1;
            compressed += usize::from(bytes.windows(FRAME.len()).any(|window| window == FRAME));
        }
    }
    (all, compressed)
}

/// Two seconds of the job, with a savepoint at the end.
async fn live(sim: &Control, env: &Env, compression: &str, ledger: &Ledger<Row>, savepoint: &str) {
    let (process, handle) = start(sim, job(compression, ledger)).await.unwrap();
    env.sleep(Duration::from_secs(2)).await;
    handle.control().ask(Ask::Savepoint(savepoint.to_owned())).await.unwrap();
    let view = handle.control().view();
    assert!(view.checkpoints.completed > 20, "{:?}", view.failures);
    process.kill();
}

#[test]
fn runs_and_savepoints_are_stored_as_the_setting_says() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        live(sim, &env, "none", &ledger, "/plain").await;
        let (all, compressed) = runs(&env, "/checkpoints").await;
        assert!(all > 2 && compressed == 0, "{compressed} of {all} are compressed");
        assert_eq!(runs(&env, "/plain").await, (1, 0));

        // Its merges read what the first life wrote.
        live(sim, &env, "zstd", &ledger, "/compressed").await;
        assert!(runs(&env, "/checkpoints").await.1 > 0);
        assert_eq!(runs(&env, "/compressed").await, (1, 1));

        let (_process, handle) = start(sim, job("none", &ledger)).await.unwrap();
        assert_eq!(handle.join().await.unwrap().how, "finished");
        let (all, compressed) = runs(&env, "/checkpoints").await;
        assert!(all > 2 && compressed == 0, "{compressed} of {all} are compressed");
        let each = |(number, _): (u64, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
        assert_eq!(ledger.committed(), counted(numbers().all().map(each)));
    });
}
