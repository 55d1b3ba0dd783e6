//! Whole jobs under seeded faults: whatever dies, and whenever, the committed output is the one of a run without faults.
//!
//! Replay one seed with `TIDEGATE_SEED=n`.

use std::{collections::BTreeMap, time::Duration};

use checkpoint::snapshots;
use env::{
    Env, FaultPoint, Rng,
    sim::{FaultAction, Simulation, StoreFaults},
};
use rand::{RngExt, SeedableRng};
use tidegate_engine::prelude::*;

use crate::{
    garbage::collect_all,
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    windows::{FIFTHS, Windows},
    world::{Death, Kind, Row, live, live_watched, with_settings},
};

/// How many seeds a plain test run takes.
const SEEDS: u64 = 60;

/// One random job and everything that will happen to it.
#[derive(Debug)]
struct Scenario {
    seed: u64,
    splits: u32,
    each: u64,
    keys: u64,
    at_once: usize,
    pause: Duration,
    union: bool,
    unchained: bool,
    interval: Duration,
    concurrent: u32,
    slice: u32,
    url: &'static str,
    store: StoreFaults,
    moods: Moods,
    /// The number at which user code panics, once in the life of a process.
    panics_at: Option<u64>,
    /// Whether a run that holds all that lives replaces the older ones, however small it is.
    replaces: bool,
    /// Whether the last process has its state in a store.
    ends_stored: bool,
    lives: Vec<Life>,
    /// Operations at which stores fail, once each, in any of the lives.
    failing: Vec<(FaultPoint, u64)>,
}

/// One process and its end.
#[derive(Clone, Copy, Debug)]
struct Life {
    parallelism: u32,
    /// Whether its state is in a store behind small tables.
    stored: bool,
    end: Ending,
    crash: bool,
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    /// It dies at this time.
    After(Duration),
    /// It dies when it comes by here.
    At(FaultPoint, u64),
}

fn draw_life(rng: &mut Rng) -> Life {
    let at_point = rng.random_bool(0.6);
    let point = FaultPoint::ALL[rng.random_range(0..FaultPoint::ALL.len())];
    Life {
        parallelism: rng.random_range(1..=4),
        end: if at_point {
            Ending::At(point, rng.random_range(1..=3))
        } else {
            Ending::After(Duration::from_millis(rng.random_range(0..2_500)))
        },
        crash: rng.random_bool(0.3),
        stored: rng.random_bool(0.4),
    }
}

/// What stores do to a disk that is full or broken.
fn draw_failure(rng: &mut Rng) -> (FaultPoint, u64) {
    const POINTS: [FaultPoint; 4] = [
        FaultPoint::StoreOpenBefore,
        FaultPoint::StoreLoadBefore,
        FaultPoint::StoreReadBefore,
        FaultPoint::StoreWriteAfter,
    ];
    (POINTS[rng.random_range(0..POINTS.len())], rng.random_range(1..=30))
}

impl Scenario {
    fn draw(seed: u64) -> Self {
        let rng = &mut Rng::seed_from_u64(seed);
        let gentle = |rng: &mut Rng| rng.random_bool(0.4);
        let store = if gentle(rng) { StoreFaults::default() } else { StoreFaults::some(rng) };
        let moods = if gentle(rng) {
            Moods::default()
        } else {
            let latency = Duration::from_millis(rng.random_range(0..60));
            Moods { latency, retry: rng.random_range(0.0..0.3), lose_reply: rng.random_range(0.0..0.3) }
        };
        let lives = (0..rng.random_range(2..6)).map(|_| draw_life(rng)).collect();
        Self {
            seed,
            splits: rng.random_range(1..=4),
            each: rng.random_range(50..400),
            keys: rng.random_range(1..40),
            at_once: rng.random_range(1..10),
            pause: Duration::from_millis(rng.random_range(1..15)),
            union: rng.random_bool(0.5),
            unchained: rng.random_bool(0.3),
            interval: Duration::from_millis(rng.random_range(20..300)),
            concurrent: rng.random_range(1..=2),
            slice: rng.random_range(1..20),
            url: if rng.random_bool(0.5) { "/data/checkpoints" } else { "sim:checkpoints" },
            store,
            moods,
            panics_at: rng.random_bool(0.3).then(|| rng.random_range(0..100)),
            replaces: rng.random_bool(0.4),
            ends_stored: rng.random_bool(0.5),
            lives,
            failing: (0..rng.random_range(0..=2)).map(|_| draw_failure(rng)).collect(),
        }
    }

    fn sources(&self) -> Vec<(&'static str, Numbers)> {
        let numbers =
            |first| Numbers::new(self.splits, self.each).from(first).paced(self.at_once, self.pause);
        let mut sources = vec![("numbers", numbers(0))];
        if self.union {
            sources.push(("more", numbers(1_000_000)));
        }
        sources
    }

    fn job(&self, parallelism: u32, stored: bool, outputs: &Outputs, panics: bool) -> Result<Job> {
        let interval = format!("{}ms", self.interval.as_millis());
        let settings = [
            ("parallelism", &*parallelism.to_string()),
            ("state.backend", if stored { "sorted-map" } else { "filesystem" }),
            ("state.memory", "1"),
            ("checkpoints.url", self.url),
            ("checkpoints.interval", &*interval),
            ("checkpoints.max-concurrent", &*self.concurrent.to_string()),
            ("checkpoints.retained", "1"),
            ("checkpoints.timeout", "20s"),
            ("restart", "fixed-delay:3:200ms"),
            ("snapshot.merge-fan-in", "2"),
            ("snapshot.replace-from", if self.replaces { "1" } else { "1MiB" }),
            ("snapshot.slice-cells", &*self.slice.to_string()),
        ];
        let job = with_settings(Job::new("subject"), &settings)?;
        let keys = self.keys;
        let streams = self.sources().into_iter().map(|(uid, source)| job.source(uid, source));
        let all = streams.reduce(Stream::union).expect("there is a source");
        let panics_at = self.panics_at.filter(|_| panics);
        let all = all.map(move |number| {
            assert!(panics_at != Some(number), "the user's function fails at {number}");
            number
        });
        let all = if self.unchained { all.disable_chaining() } else { all };
        all.clone()
            .key_by(move |number| number % keys)
            .count("count")
            .map(|(key, count)| Row(Kind::Count, key, count))
            .sink("counts", outputs.counts.clone());
        let windows = all
            .watermarks(WatermarkStrategy::monotonous())
            .key_by(move |number| number % keys)
            .process("windows", Windows);
        windows.side_output(FIFTHS).union(windows).sink("rows", outputs.rows.clone());
        Ok(job)
    }

    /// What a run without faults writes, found without the engine.
    fn expected(&self) -> (BTreeMap<Row, u64>, BTreeMap<Row, u64>) {
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut counts, mut rows) = (Vec::new(), Vec::new());
        for (_, source) in self.sources() {
            for (number, _) in source.all() {
                let key = number % self.keys;
                let count = seen.entry(key).or_default();
                *count += 1;
                counts.push(Row(Kind::Count, key, *count));
                rows.push(Row(if number % 3 == 0 { Kind::Held } else { Kind::Windowed }, key, number));
                if number % 5 == 0 {
                    rows.push(Row(Kind::Fifth, key, number));
                }
            }
        }
        rows.extend(seen.into_iter().map(|(key, count)| Row(Kind::Seen, key, count)));
        (counted(counts), counted(rows))
    }
}

#[derive(Clone, Default)]
struct Outputs {
    counts: Ledger<Row>,
    rows: Ledger<Row>,
}

/// What became of one seed.
struct Run {
    trace: u64,
    faults: BTreeMap<FaultPoint, u64>,
    deaths: u32,
    /// Cells that left small tables for the stores behind them.
    evicted: u64,
}

fn run(seed: u64) -> Run {
    let scenario = Scenario::draw(seed);
    let _told = Told(&scenario);
    let sim = Simulation::new(seed).with_limit(Duration::from_secs(3_600));
    let outputs = Outputs::default();
    let (deaths, evicted) = sim.run(async |observer| {
        let deaths = suffer(&sim, &observer, &scenario, &outputs).await;
        let evicted = finish(&sim, &scenario, &outputs).await;
        check(&observer, &scenario, &outputs).await;
        collect(&sim, &scenario).await;
        (deaths, evicted)
    });
    Run { trace: sim.trace_hash(), faults: sim.faults(), deaths, evicted }
}

/// The phase of faults: one life after the other. Returns how many ended by force.
async fn suffer(sim: &Simulation, observer: &Env, scenario: &Scenario, outputs: &Outputs) -> u32 {
    sim.set_store_faults(scenario.store);
    for output in [&outputs.counts, &outputs.rows] {
        output.set_moods(scenario.moods);
    }
    for &(point, nth) in &scenario.failing {
        sim.arm(point, nth, FaultAction::Fail(ErrorKind::Unavailable));
    }
    let mut deaths = 0;
    for life in &scenario.lives {
        let (process, own) = sim.process("job");
        let mut limit = Duration::from_secs(60);
        match life.end {
            Ending::After(time) => limit = time,
            Ending::At(point, nth) => {
                let action = if life.crash { FaultAction::Crash } else { FaultAction::Kill };
                sim.arm(point, nth, action);
            }
        }
        let job = scenario.job(life.parallelism, life.stored, outputs, true).unwrap();
        match observer.timeout(limit, live(job, &own, &process)).await {
            Some(Death::Killed) => deaths += 1,
            Some(Death::Ended(Err(error))) => {
                let passing = [ErrorKind::Retryable, ErrorKind::Unavailable, ErrorKind::User];
                assert!(passing.contains(&error.kind()), "{:?}: {error}", error.kind());
            }
            Some(Death::Ended(Ok(_))) => {}
            None => deaths += 1,
        }
        if life.crash { process.crash() } else { process.kill() }
    }
    deaths
}

/// The phase of healing: nothing goes wrong any more, and the job must finish. Returns how many cells were evicted.
async fn finish(sim: &Simulation, scenario: &Scenario, outputs: &Outputs) -> u64 {
    sim.set_store_faults(StoreFaults::default());
    for output in [&outputs.counts, &outputs.rows] {
        output.set_moods(Moods::default());
    }
    // Points that no life has reached are still armed, and go off one by one.
    for _ in 0..=scenario.lives.len() {
        let (process, own) = sim.process("job");
        let mut control = None;
        let job = scenario.job(2, scenario.ends_stored, outputs, false).unwrap();
        match live_watched(job, &own, &process, |it| control = Some(it.clone())).await {
            Death::Killed => {}
            Death::Ended(result) => {
                assert_eq!(result.unwrap().status, tidegate_engine::cluster::status::JobStatus::Finished);
                let memory = control.and_then(|it| it.memory_use());
                return memory.map_or(0, |memory| memory.evicted_cells);
            }
        }
    }
    panic!("the job does not finish");
}

async fn check(observer: &Env, scenario: &Scenario, outputs: &Outputs) {
    let (counts, rows) = scenario.expected();
    assert_same("counts", &outputs.counts.committed(), &counts);
    assert_same("rows", &outputs.rows.committed(), &rows);
    for output in [&outputs.counts, &outputs.rows] {
        assert_eq!(output.breaches(), [""; 0]);
        assert_eq!(output.pending(), 0, "transactions are left in doubt");
    }
    let store = observer.open_store(scenario.url).unwrap();
    let report = snapshots::verify(observer, store, &mut |_| {}).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
    let foreign = report.problems.iter().filter(|it| it.what.contains("not a file of"));
    assert_eq!(foreign.count(), 0, "{:?}", report.problems);
}

/// After a last collection nothing is left but what the newest checkpoint needs.
async fn collect(sim: &Simulation, scenario: &Scenario) {
    // Points that nobody has reached are still armed.
    for _ in 0..=scenario.lives.len() {
        let (process, own) = sim.process("collector");
        match collect_all(&own, scenario.url).await {
            Ok(()) => return,
            Err(error) => assert!(!process.is_alive(), "{error}"),
        }
    }
    panic!("the garbage is not collected");
}

/// Compares multisets and says what is missing and what is too much.
fn assert_same(what: &str, found: &BTreeMap<Row, u64>, expected: &BTreeMap<Row, u64>) {
    let of = |map: &BTreeMap<Row, u64>, row: &Row| map.get(row).copied().unwrap_or(0);
    let all = found.keys().chain(expected.keys());
    let mut wrong: Vec<_> = all
        .filter(|row| of(found, row) != of(expected, row))
        .map(|row| (*row, of(found, row), of(expected, row)))
        .collect();
    wrong.sort();
    wrong.dedup();
    let first = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{what}: {} rows differ (row, found, expected): {first:?}", wrong.len());
}

/// Says how to replay a failure.
struct Told<'a>(&'a Scenario);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        #[expect(clippy::disallowed_macros, reason = "the last words of a failing test")]
        if std::thread::panicking() {
            eprintln!(
                "replay: TIDEGATE_SEED={} cargo test -p tidegate-engine --test it exactly_once_sim\n{:#?}",
                self.0.seed, self.0
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one way to name a seed from outside")]
pub(crate) fn seed_from_outside() -> Option<u64> {
    std::env::var("TIDEGATE_SEED").ok().map(|text| text.parse().expect("TIDEGATE_SEED is a number"))
}

#[test]
fn whatever_dies_the_output_is_that_of_a_run_without_faults() {
    if let Some(seed) = seed_from_outside() {
        run(seed);
        return;
    }
    let mut hits: BTreeMap<FaultPoint, u64> = BTreeMap::new();
    let (mut deaths, mut evicting) = (0, 0);
    for seed in 0..SEEDS {
        let run = run(seed);
        deaths += run.deaths;
        evicting += u64::from(run.evicted > 0);
        for (point, count) in run.faults {
            *hits.entry(point).or_default() += count;
        }
    }
    let seldom = |point| hits.get(&point).copied().unwrap_or(0) < SEEDS;
    assert!(!seldom(FaultPoint::MergeAfter), "runs were merged too seldom: {hits:?}");
    assert!(!seldom(FaultPoint::DeleteAfter), "files were collected too seldom: {hits:?}");
    assert!(evicting > SEEDS / 10, "cells left for stores in {evicting} runs only");
    assert!(u64::from(deaths) > SEEDS, "only {deaths} processes died");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 8, 21] {
        assert_eq!(run(seed).trace, run(seed).trace, "seed {seed}");
    }
}
