//! A sink whose transactions take longer to prepare than a checkpoint may take: what a given-up checkpoint sealed goes
//! into the next one, which waits for it.

use std::time::Duration;

use tidegate_engine::prelude::*;

use crate::{
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Kind, Row, simulate, start, with_settings},
};

fn source() -> Numbers {
    Numbers::new(1, 400).paced(1, Duration::from_millis(5))
}

fn job(ledger: &Ledger<Row>, interval: &str) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", interval),
        ("checkpoints.timeout", "1s"),
        ("checkpoints.tolerable-failures", "1000"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let rows = job.source("numbers", source()).map(|number| Row(Kind::Count, number, 1));
    rows.sink("out", ledger.clone());
    job
}

/// Runs a job to its end whose checkpoints are given up before the server has answered.
fn everything_is_committed(interval: &'static str) {
    simulate(async |sim, _| {
        let ledger = Ledger::default();
        ledger.set_moods(Moods { latency: Duration::from_secs(60), ..Moods::default() });
        let (process, handle) = start(sim, job(&ledger, interval)).await.unwrap();
        let control = handle.control().clone();
        handle.join().await.unwrap();
        assert_ne!(control.view().checkpoints.failed, 0, "no checkpoint was given up");
        process.kill();
        assert_eq!(
            ledger.committed(),
            counted(source().all().map(|(number, _)| Row(Kind::Count, number, 1)))
        );
        assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()));
    });
}

#[test]
fn the_last_checkpoint_waits_for_what_a_given_up_one_prepares() {
    everything_is_committed("off");
}

#[test]
fn a_checkpoint_waits_for_what_a_given_up_one_prepares() {
    everything_is_committed("500ms");
}
