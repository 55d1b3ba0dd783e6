//! Broadcast state: the same for every subtask at every barrier, through kills and at any parallelism, or the checkpoint says
//! which subtasks do not agree.

use std::time::Duration;

use env::Env;
use tidegate_engine::{cluster::attempt::Ask, prelude::*};
use types::ErrorKind;

use crate::{
    ledger::{Ledger, counted},
    numbers::Numbers,
    world::{Kind, Row, assert_says, run, simulate, start, with_settings},
};

const KEYS: u64 = 7;
const EACH: u64 = 1_000;
/// Under this key stands how many numbers there were.
const ALL: u64 = u64::MAX;

fn numbers() -> Numbers {
    Numbers::new(2, EACH).paced(3, Duration::from_millis(10))
}

/// Sums all numbers by key, and tells the sums once the last number has come.
#[derive(Clone)]
struct Sums;

impl ProcessFunction for Sums {
    type Key = ();
    type In = u64;
    type Out = Row;
    type State = BroadcastState<u64, u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_broadcast("sums")
    }

    fn process(&mut self, number: u64, sums: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        let sums = sums.get(ctx);
        *sums.entry(number % KEYS).or_default() += number;
        let all = sums.entry(ALL).or_default();
        *all += 1;
        if *all == 2 * EACH {
            let rows: Vec<_> = sums.iter().map(|(key, sum)| Row(Kind::Count, *key, *sum)).collect();
            rows.into_iter().for_each(|row| ctx.emit(row));
        }
        Ok(())
    }
}

fn job(parallelism: &str, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "200ms"),
        ("parallelism", parallelism),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", numbers()).broadcast().process("sums", Sums).sink("out", ledger.clone());
    job
}

#[test]
fn every_subtask_has_it_through_kills_and_at_any_parallelism() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        for parallelism in ["2", "3", "1"] {
            let (process, handle) = start(sim, job(parallelism, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(700)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(100)).await;
            process.kill();
        }
        run(sim, job("4", &ledger)).await.unwrap();
        let sum = |key: u64| numbers().all().map(|(number, _)| number).filter(|it| it % KEYS == key).sum();
        let rows =
            (0..KEYS).map(|key| Row(Kind::Count, key, sum(key))).chain([Row(Kind::Count, ALL, 2 * EACH)]);
        let expected: Vec<_> = rows.flat_map(|row| [row; 4]).collect();
        assert_eq!(ledger.committed(), counted(expected));
    });
}

#[test]
fn subtasks_that_do_not_agree_are_named() {
    simulate(async |sim, _env: Env| {
        let settings = [
            ("checkpoints.url", "/checkpoints"),
            ("checkpoints.interval", "200ms"),
            ("parallelism", "2"),
            ("restart", "none"),
        ];
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        let rows = job.source("numbers", numbers()).rebalance().process("sums", Sums);
        rows.sink("out", Ledger::default());
        let error = run(sim, job).await.unwrap_err();
        let texts = ["operator sums", "subtasks 0 and 1", "broadcast state \"sums\"", "every subtask gets"];
        assert_says(&error, ErrorKind::User, &texts);
    });
}
