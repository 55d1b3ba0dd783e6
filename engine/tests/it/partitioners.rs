//! Every way to spread records from two subtasks over three, with checkpoints and two deaths on the way: nothing is lost,
//! nothing comes twice, and each record goes where its partitioner says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use env::sim::{Options, Simulation};
use tidegate_engine::{api::function::Collector, cluster::status::JobStatus, prelude::*};

use crate::{
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Death, live, with_settings},
};

/// How many worlds each partitioner is tried in.
const SEEDS: u64 = 4;
/// When the first two processes die.
const DEATHS: [Duration; 2] = [Duration::from_millis(430), Duration::from_millis(370)];
const TARGETS: u64 = 3;

/// The upstream subtask of a number, and the number.
type Sent = (u64, u64);

/// The upstream subtask, the downstream one, the number.
type Received = (u64, u64, u64);

/// Writes on each number which subtask it comes by: the function says where.
#[derive(Clone)]
struct Stamp<In, Out> {
    subtask: u64,
    stamp: fn(u64, In) -> Out,
}

fn stamp<In: Clone, Out: Clone>(stamp: fn(u64, In) -> Out) -> Stamp<In, Out> {
    Stamp { subtask: u64::MAX, stamp }
}

impl<In: Data, Out: Data> RichFunction for Stamp<In, Out> {
    type In = In;
    type Out = Out;

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.subtask = context.subtask.0.into();
        Ok(())
    }

    fn call(&mut self, record: In, out: &mut Collector<'_, Out>) -> Result<()> {
        out.emit((self.stamp)(self.subtask, record));
        Ok(())
    }
}

fn numbers() -> Numbers {
    Numbers::new(2, 400).paced(3, Duration::from_millis(10))
}

type Spread = fn(Stream<Sent>) -> Stream<Sent>;

fn job(spread: Spread, ledger: &Ledger<Received>) -> Job {
    let settings = [
        ("parallelism", "2"),
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "50ms"),
        ("restart", "none"),
    ];
    let job = with_settings(Job::new("subject"), &settings).unwrap();
    let sent = job.source("numbers", numbers()).rich(stamp(|from, number| (from, number)));
    spread(sent)
        .rich(stamp(|to, (from, number): Sent| (from, to, number)))
        .parallelism(TARGETS as u32)
        .sink("out", ledger.clone())
        .parallelism(TARGETS as u32);
    job
}

/// What is committed in the end, over three processes of which two died in the middle.
fn committed(seed: u64, spread: Spread) -> Vec<Received> {
    let sim = Simulation::new(seed).with_limit(Duration::from_secs(600));
    sim.set_options(Options { blocking_delay: Duration::ZERO, ..sim.options() });
    sim.run(async |observer| {
        let ledger = Ledger::default();
        ledger.set_moods(Moods { latency: Duration::from_millis(10), ..Moods::default() });
        let mut before = 0;
        for (life, limit) in DEATHS.into_iter().enumerate() {
            let (process, own) = sim.process("job");
            let lived = observer.timeout(limit, live(job(spread, &ledger), &own, &process)).await;
            assert!(lived.is_none(), "seed {seed}: life {life} came to its end");
            if life == 0 {
                process.crash()
            } else {
                process.kill()
            }
            let now = ledger.committed().len();
            assert!(now > before, "seed {seed}: life {life} committed nothing");
            before = now;
        }
        let (process, own) = sim.process("job");
        match live(job(spread, &ledger), &own, &process).await {
            Death::Ended(Ok(result)) => assert_eq!(result.status, JobStatus::Finished),
            Death::Ended(Err(error)) => panic!("seed {seed}: {error}"),
            Death::Killed => panic!("seed {seed}: nobody kills the last one"),
        }
        assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()), "seed {seed}");
        let rows = ledger.committed();
        assert!(rows.len() > before, "seed {seed}: nothing was left to do");
        rows.into_iter().flat_map(|(row, times)| vec![row; times as usize]).collect()
    })
}

/// How many records went each way.
fn ways(rows: &[Received]) -> BTreeMap<(u64, u64), u64> {
    counted(rows.iter().map(|(from, to, _)| (*from, *to)))
}

/// Runs in each world; each number must come out `copies` times.
fn each_world(spread: Spread, copies: u64, check: impl Fn(&[Received])) {
    for seed in 0..SEEDS {
        let rows = committed(seed, spread);
        let expected: BTreeMap<_, _> = numbers().all().map(|(number, _)| (number, copies)).collect();
        assert!(counted(rows.iter().map(|row| row.2)) == expected, "seed {seed}: some are lost or double");
        let from: BTreeSet<_> = rows.iter().map(|row| row.0).collect();
        assert_eq!(from, BTreeSet::from([0, 1]), "seed {seed}: only one subtask sent");
        check(&rows);
    }
}

fn all_ways() -> BTreeSet<(u64, u64)> {
    (0..2).flat_map(|from| (0..TARGETS).map(move |to| (from, to))).collect()
}

/// In each life the shares of a subtask's targets differ by one at the most.
fn assert_even(ways: &BTreeMap<(u64, u64), u64>, of: u64) {
    let shares = ways.iter().filter(|((from, _), _)| *from == of).map(|(_, share)| *share);
    let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
    assert!(most - least <= DEATHS.len() as u64 + 1, "{ways:?}");
}

/// How many of a subtask's records went to the target after that of the record before.
fn in_turn(rows: &[Received], of: u64) -> (usize, usize) {
    let sent: BTreeMap<_, _> = rows.iter().filter(|row| row.0 == of).map(|row| (row.2, row.1)).collect();
    let targets: Vec<_> = sent.into_values().collect();
    let next = targets.windows(2).filter(|pair| pair[1] == (pair[0] + 1) % TARGETS);
    (next.count(), targets.len())
}

#[test]
fn rebalance_serves_all_in_turn() {
    each_world(Stream::rebalance, 1, |rows| {
        let ways = ways(rows);
        assert_eq!(ways.keys().copied().collect::<BTreeSet<_>>(), all_ways());
        for from in 0..2 {
            assert_even(&ways, from);
            let (next, all) = in_turn(rows, from);
            assert!(next + 10 > all, "{next} of {all}");
        }
    });
}

#[test]
fn rescale_serves_each_subtasks_own_part() {
    each_world(Stream::rescale, 1, |rows| {
        let ways = ways(rows);
        let own: BTreeSet<_> = ways.keys().copied().collect();
        assert_eq!(own, BTreeSet::from([(0, 0), (1, 1), (1, 2)]), "{ways:?}");
        assert_even(&ways, 1);
    });
}

#[test]
fn shuffle_reaches_all_and_keeps_no_turn() {
    each_world(Stream::shuffle, 1, |rows| {
        let ways = ways(rows);
        assert_eq!(ways.keys().copied().collect::<BTreeSet<_>>(), all_ways());
        for ((from, _), share) in &ways {
            let all: u64 = ways.iter().filter(|((of, _), _)| of == from).map(|(_, share)| share).sum();
            assert!(share * 5 > all && share * 2 < all, "{ways:?}");
        }
        for from in 0..2 {
            let (next, all) = in_turn(rows, from);
            assert!(next * 2 < all, "{next} of {all} come in turn");
        }
    });
}

#[test]
fn broadcast_gives_every_record_to_every_subtask() {
    each_world(Stream::broadcast, TARGETS, |rows| {
        let received = counted(rows.iter().map(|(_, to, number)| (*to, *number)));
        assert!(received.values().all(|times| *times == 1), "a subtask had a record twice");
    });
}

#[test]
fn global_gives_all_to_the_first_subtask() {
    each_world(Stream::global, 1, |rows| assert!(rows.iter().all(|row| row.1 == 0), "{:?}", ways(rows)));
}

#[test]
fn a_custom_partitioner_is_obeyed() {
    let spread: Spread =
        |sent| sent.partition_custom(|(_, number), targets| (*number as usize * 7 + 1) % targets);
    each_world(spread, 1, |rows| {
        assert!(rows.iter().all(|(_, to, number)| *to == (number * 7 + 1) % TARGETS), "{:?}", ways(rows));
    });
}
