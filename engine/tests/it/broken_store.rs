//! A sync of a checkpoint directory that fails, at each place in turn. A file that cannot be synced is one that does not
//! come to be, and the job goes on. A directory that cannot be synced ends the process: nobody knows what of it is
//! durable, and no attempt of this process may try it again,
//! whatever number of failed checkpoints is tolerated. Started again, the job ends as if nothing had happened.

use std::{collections::BTreeMap, time::Duration};

use env::sim::{Options, Simulation};
use tidegate_engine::{cluster::status::JobStatus, prelude::*};

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Death, Kind, Row, assert_says, live, with_settings},
};

const NUMBERS: u64 = 200;
const KEYS: u64 = 7;

/// How many checkpoints in a row may fail: none, or as many as where nothing is set.
const NONE: Option<&str> = Some("0");
const DEFAULT: Option<&str> = None;

fn job(ledger: &Ledger<Row>, tolerable: Option<&str>) -> Job {
    let mut settings = vec![
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "300ms"),
        // A restart in vain would be tried for ever.
        ("restart", "exponential-delay:10ms:1:10ms"),
    ];
    settings.extend(tolerable.map(|failures| ("checkpoints.tolerable-failures", failures)));
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", Numbers::new(1, NUMBERS).paced(1, Duration::from_millis(10)))
        .key_by(|number| number % KEYS)
        .count("count")
        .map(|(key, count)| Row(Kind::Count, key, count))
        .sink("out", ledger.clone());
    job
}

fn expected() -> BTreeMap<Row, u64> {
    counted((0..NUMBERS).map(|number| Row(Kind::Count, number % KEYS, number / KEYS + 1)))
}

/// What is said where a failure of collecting files is nothing that ends the attempt.
const LATER: &str = "collecting old files is tried later";

/// How the first life ended whose `nth` sync failed, and when; none for 0. The output is right in the end.
fn run(nth: u64, tolerable: Option<&str>) -> (Result<(), Error>, Duration, u64) {
    let sim = Simulation::new(nth).with_limit(Duration::from_secs(600));
    sim.set_options(Options { yields: 0.0, blocking_delay: Duration::ZERO, ..sim.options() });
    let ledger = Ledger::default();
    let (first, lived) = sim.run(async |sim_env| {
        if nth > 0 {
            sim.disk().fail_sync(nth);
        }
        let (since, mut lived) = (sim_env.now(), None);
        let mut lives = Vec::new();
        for _ in 0..3 {
            let (process, env) = sim.process("job");
            let Death::Ended(ended) = live(job(&ledger, tolerable), &env, &process).await else {
                panic!("nobody kills it");
            };
            process.kill();
            if ended.is_err() {
                let said = |(_, line): &(String, String)| line.contains(LATER);
                assert!(!sim.printed().iter().any(said), "sync {nth}: never on this store");
            }
            lived.get_or_insert(sim_env.now().since(since));
            let done = ended.as_ref().is_ok_and(|result| result.status == JobStatus::Finished);
            lives.push(ended.map(drop));
            if done {
                break;
            }
        }
        assert!(lives.last().unwrap().is_ok(), "sync {nth}: {lives:?}");
        assert!(lives.len() <= 2, "sync {nth}: one more start is enough: {lives:?}");
        (lives.remove(0), lived.unwrap())
    });
    assert_eq!(ledger.committed(), expected(), "sync {nth}");
    assert_eq!(ledger.breaches(), [""; 0], "sync {nth}");
    (first, lived, sim.disk().syncs())
}

#[test]
fn a_directory_that_cannot_be_synced_ends_the_process() {
    let (undisturbed, _, syncs) = run(0, NONE);
    undisturbed.unwrap();
    let (mut went_on, mut ended) = (0, 0);
    for nth in 1..=syncs {
        let (first, lived, _) = run(nth, NONE);
        // Wherever it was noticed, in a run, a manifest or a record: a failure that is tolerated elsewhere is not here.
        let (tolerant, lived_tolerant, _) = run(nth, DEFAULT);
        assert_eq!(tolerant.is_ok(), first.is_ok(), "sync {nth}: {tolerant:?}");
        match first {
            Ok(()) => went_on += 1,
            Err(error) => {
                assert_says(&error, ErrorKind::Unavailable, &["sync", "check"]);
                assert_eq!(lived_tolerant, lived, "sync {nth}: it ends at once");
                ended += 1;
            }
        }
    }
    assert!(went_on > 10 && ended > 10, "{went_on} went on and {ended} ended, of {syncs}");
}
