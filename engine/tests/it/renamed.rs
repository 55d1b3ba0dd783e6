//! Operators with a new name: the job goes on with the state, the splits and the pending transactions of the old ones.

use std::{collections::BTreeSet, time::Duration};

use checkpoint::{history, manifest};
use env::Env;
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    counting::{KEYS, assert_gapless},
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

const OLD: [&str; 3] = ["numbers", "count", "out"];
const NEW: [&str; 3] = ["integers", "tally", "ledger"];

fn numbers() -> Numbers {
    Numbers::new(2, 1_200).paced(3, Duration::from_millis(10))
}

/// The counting job with these names, which had other ones before.
fn job(names: [&str; 3], formerly: Option<[&str; 3]>, parallelism: &str, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "200ms"),
        ("parallelism", parallelism),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let all = job.source(names[0], numbers());
    let all = formerly.iter().fold(all, |all, old| all.formerly(old[0]));
    let tally = all.key_by(|number| number % KEYS).count(names[1]);
    let tally = formerly.iter().fold(tally, |tally, old| tally.formerly(old[1]));
    let sink = tally.map(|(key, count)| Row(Kind::Count, key, count)).sink(names[2], ledger.clone());
    formerly.iter().fold(sink, |sink, old| sink.formerly(old[2]));
    job
}

/// The operators that the newest checkpoint names.
async fn operators(env: &Env) -> BTreeSet<String> {
    let store = env.open_store("/checkpoints").unwrap();
    let newest = history::open(env, store.clone()).await.unwrap().unwrap();
    let file = &newest.standing.completed.last().unwrap().manifest;
    let manifest = manifest::read(env, &*store, file).await.unwrap();
    manifest.operators.iter().map(|operator| operator.uid.to_string()).collect()
}

#[test]
fn a_renamed_job_goes_on_at_any_parallelism_and_keeps_the_new_names_alone() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, job(OLD, None, "2", &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(900)).await;
        // What the history completes from now on stays pending, under the old name.
        ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
        env.sleep(Duration::from_millis(500)).await;
        process.kill();
        assert_eq!(operators(&env).await, OLD.map(str::to_owned).into());
        assert!(ledger.pending() > 1, "a whole transaction and one that no checkpoint holds");
        ledger.set_moods(Moods::default());

        for parallelism in ["3", "1"] {
            let (process, handle) = start(sim, job(NEW, Some(OLD), parallelism, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(600)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            assert_eq!(operators(&env).await, NEW.map(str::to_owned).into());
            process.kill();
        }
        // Nothing of the old names is left to take over.
        run(sim, job(NEW, None, "4", &ledger)).await.unwrap();
        let each = |(number, _): (u64, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
        assert_eq!(ledger.committed(), counted(numbers().all().map(each)));
        assert_gapless(&ledger, 2_400);
    });
}

/// Counts the numbers under `one` and, if it is there, under `other`.
fn two_counts(one: &str, formerly: Option<&str>, other: Option<&str>, dropped: Option<&str>) -> Job {
    let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "200ms")];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let job = dropped.into_iter().fold(job, |job, uid| job.set("allow-dropped-state", uid).unwrap());
    let numbers = job.source("numbers", numbers());
    for (uid, formerly) in [(Some(one), formerly), (other, None)] {
        let Some(uid) = uid else { continue };
        let counts = numbers.clone().key_by(|number| number % KEYS).count(uid);
        let counts = formerly.into_iter().fold(counts, |counts, old| counts.formerly(old));
        counts.map(|(key, _)| key).sink(&format!("out-{uid}"), Ledger::default());
    }
    job
}

#[test]
fn one_operator_gets_the_state_of_one() {
    simulate(async |sim, env| {
        let (process, _handle) = start(sim, two_counts("a", None, Some("b"), None)).await.unwrap();
        env.sleep(Duration::from_millis(700)).await;
        process.kill();
        let claims_both = |dropped| two_counts("b", Some("a"), None, dropped);
        let error = run(sim, claims_both(None)).await.unwrap_err();
        let texts = ["of operator b and of operator a", "that of b alone", "--allow-dropped-state a"];
        assert_says(&error, ErrorKind::IncompatibleState, &texts);
        run(sim, claims_both(Some("a"))).await.unwrap();
    });
}
