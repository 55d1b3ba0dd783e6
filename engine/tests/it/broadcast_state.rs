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
struct Sums {
    /// Whether the subtasks after the first pass over a number now and then.
    forgetful: bool,
}

impl ProcessFunction for Sums {
    type Key = ();
    type In = u64;
    type Out = Row;
    type State = BroadcastState<u64, u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_broadcast("sums")
    }

    fn process(&mut self, number: u64, sums: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        if self.forgetful && number.is_multiple_of(100) && ctx.runtime().subtask.0 > 0 {
            return Ok(());
        }
        let sums = sums.get_mut(ctx);
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

fn job(function: Sums, parallelism: &str, mode: &str, ledger: &Ledger<Row>) -> Job {
    let settings = [
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "200ms"),
        ("checkpoints.mode", mode),
        ("parallelism", parallelism),
        ("restart", "none"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    job.source("numbers", numbers()).broadcast().process("sums", function).sink("out", ledger.clone());
    job
}

const EXACT: &str = "exactly-once";
const SUMS: Sums = Sums { forgetful: false };
const FORGETFUL: Sums = Sums { forgetful: true };

#[test]
fn every_subtask_has_it_through_kills_and_at_any_parallelism() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        for parallelism in ["2", "3", "1"] {
            let (process, handle) = start(sim, job(SUMS, parallelism, EXACT, &ledger)).await.unwrap();
            env.sleep(Duration::from_millis(700)).await;
            handle.control().ask(Ask::Checkpoint).await.unwrap();
            env.sleep(Duration::from_millis(100)).await;
            process.kill();
        }
        run(sim, job(SUMS, "4", EXACT, &ledger)).await.unwrap();
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
        let error = run(sim, job(FORGETFUL, "2", EXACT, &Ledger::default())).await.unwrap_err();
        let texts = ["operator sums", "subtasks 0 and 1", "broadcast state \"sums\"", "every subtask gets"];
        assert_says(&error, ErrorKind::User, &texts);
    });
}

/// At least once, copies may differ at a barrier. What is restored is one of them, so that exactly-once mode can go on with it.
#[test]
fn at_least_once_copies_are_not_compared_and_one_is_restored() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let (process, handle) = start(sim, job(FORGETFUL, "2", "at-least-once", &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(700)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        process.kill();
        run(sim, job(SUMS, "3", EXACT, &ledger)).await.unwrap();
        let all = ledger.committed().into_iter().filter(|(row, _)| row.1 == ALL).collect::<Vec<_>>();
        assert_eq!(all, [(Row(Kind::Count, ALL, 2 * EACH), 3)]);
    });
}

/// What belongs to all cannot be dealt out as if it belonged to one, nor the other way round.
#[test]
fn a_state_that_is_dealt_out_in_another_way_is_refused() {
    simulate(async |sim, env: Env| {
        let ledger = Ledger::default();
        let (process, handle) = start(sim, job(SUMS, "2", EXACT, &ledger)).await.unwrap();
        env.sleep(Duration::from_millis(300)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        process.kill();
        let settings = [("checkpoints.url", "/checkpoints"), ("parallelism", "2")];
        let job = with_settings(Job::new("subject"), &settings).unwrap();
        job.source("numbers", numbers()).broadcast().process("sums", Listed).sink("out", ledger);
        let error = run(sim, job).await.unwrap_err();
        let texts = ["operator sums", "\"sums\" was stored as broadcast, this program declares union list"];
        assert_says(&error, ErrorKind::IncompatibleState, &texts);
    });
}

/// Declares a list where there was a broadcast state, of elements of the same shape.
#[derive(Clone)]
struct Listed;

impl ProcessFunction for Listed {
    type Key = ();
    type In = u64;
    type Out = Row;
    type State = OperatorListState<(u64, u64)>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_union_list("sums")
    }

    fn process(&mut self, _: u64, _: &Self::State, _: &mut Context<'_, Self>) -> Result<()> {
        Ok(())
    }
}
