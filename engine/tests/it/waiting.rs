//! After a restore into memory values wait for their cells: the job runs before, and the cells are made while it is idle.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_engine::{cluster::status::JobStatus, prelude::*};
use types::ErrorKind;

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{assert_says, run, simulate, start, with_settings},
};

/// What may be written and not read.
const UNREADABLE: u64 = 1_500;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64")]
struct Picky(u64);

impl TryFrom<u64> for Picky {
    type Error = &'static str;

    fn try_from(number: u64) -> std::result::Result<Self, &'static str> {
        if number == UNREADABLE { Err("not this one") } else { Ok(Self(number)) }
    }
}

/// Keeps a value for each number, of which some come every ten seconds.
fn job(first: u64, parallelism: &str, ledger: &Ledger<u64>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "1s"),
        ("restart", "none"),
        ("parallelism", parallelism),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", Numbers::endless(2).from(first).paced(1_000, Duration::from_secs(10)))
        .key_by(|number: &u64| *number)
        .map_with_state("kept", |state: &mut Option<Picky>, number: u64| {
            let before = state.replace(Picky(number));
            before.map_or(number, |Picky(before)| before)
        })
        .sink("out", ledger.clone());
    job
}

/// Cells that wait, over all tasks.
fn waiting(handle: &JobHandle) -> u64 {
    let page = handle.control().metrics().encode();
    let lines = page.lines().filter(|line| line.starts_with("tidegate_task_waiting_cells{"));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// No record comes, and after a while nothing waits; whoever comes next restores from a checkpoint that was taken meanwhile.
#[test]
fn an_idle_job_makes_the_cells_that_wait() {
    simulate(async |sim, env| {
        let (first, ledger) = (1 << 20, Ledger::default());
        let (process, handle) = start(sim, job(first, "2", &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(25)).await;
        assert_eq!(waiting(&handle), 0);
        process.kill();
        for parallelism in ["2", "3", "1"] {
            let (process, handle) = start(sim, job(first, parallelism, &ledger)).await.unwrap();
            while handle.control().view().status != JobStatus::Running {
                env.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(waiting(&handle), 4_000, "two splits gave a thousand numbers twice");
            env.sleep(Duration::from_secs(3)).await;
            assert_eq!(waiting(&handle), 0);
            assert!(handle.control().view().checkpoints.completed > 0);
            process.kill();
        }
    });
}

#[test]
fn a_value_that_cannot_be_decoded_fails_the_task_and_names_its_place() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let (process, _handle) = start(sim, job(0, "1", &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(15)).await;
        process.kill();
        let error = run(sim, job(0, "1", &ledger)).await.map(drop).unwrap_err();
        assert_says(
            &error,
            ErrorKind::Corrupt,
            &["operator kept, subtask 0: ", ".run, offset ", "not this one"],
        );
    });
}
