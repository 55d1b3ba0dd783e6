//! What a failed checkpoint held goes into the next one: no change of state is lost between them.

use std::time::Duration;

use checkpoint::snapshots::{Listing, list};
use env::{
    Env,
    sim::{Control, StoreFaults},
};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, run, simulate, start, with_settings},
};

const KEYS: u64 = 7;
const ROUNDS: usize = 5;
const URL: &str = "/checkpoints";

fn source() -> Numbers {
    Numbers::new(1, 3_000).paced(1, Duration::from_millis(5))
}

fn job(ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", URL),
        ("checkpoints.interval", "off"),
        ("checkpoints.tolerable-failures", "1000"),
        ("snapshot.merge-fan-in", "1024"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", source())
        .key_by(|number| number % KEYS)
        .count("count")
        .map(|(key, count)| Row(Kind::Count, key, count))
        .sink("out", ledger.clone());
    job
}

/// The number of runs that the newest checkpoint lists for the counts.
async fn runs_listed(env: &Env) -> usize {
    let store = env.open_store(URL).unwrap();
    let Listing::Job { checkpoints, .. } = list(env, store).await.unwrap() else { panic!("no job is there") };
    let manifest = checkpoints.last().unwrap().manifest.as_ref().unwrap();
    let counts = manifest.operators.iter().find(|it| it.uid.as_str() == "count").unwrap();
    counts.subtasks.iter().map(|it| it.runs.len()).sum()
}

/// Takes a checkpoint that fails because the store does, and one that does not.
async fn round(sim: &Control, env: &Env, handle: &JobHandle) {
    env.sleep(Duration::from_millis(500)).await;
    sim.set_store_faults(StoreFaults { refuse: 1.0, ..StoreFaults::default() });
    let failed = handle.control().ask(Ask::Checkpoint).await;
    assert!(failed.is_err(), "{failed:?}");
    sim.set_store_faults(StoreFaults::default());
    env.sleep(Duration::from_millis(500)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
}

#[test]
fn state_is_exact_after_a_kill() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, handle) = start(sim, job(&ledger)).await.unwrap();
        for rounds in 1..=ROUNDS {
            round(sim, &env, &handle).await;
            assert_eq!(runs_listed(&env).await, 2 * rounds, "a run for each interval, failed or not");
        }
        assert_eq!(handle.control().view().checkpoints.failed, ROUNDS as u64);
        process.kill();

        run(sim, job(&ledger)).await.unwrap();
        let each = |(number, _): (u64, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
        assert_eq!(ledger.committed(), counted(source().all().map(each)));
        assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()));
    });
}
