//! Event time in the middle of a stream: timers fire at the job's watermark interval, behind the slowest input, and a
//! silent input holds them back unless its strategy lets it be idle.

use std::{collections::BTreeMap, time::Duration};

use env::{Env, sim::Control};
use tidegate_engine::{cluster::attempt::Ask, prelude::*};

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{Kind, Row, simulate, start, with_settings},
};

/// Sets a timer for each record's event time, and says in which millisecond of the job's life it fired.
#[derive(Clone)]
struct Alarms {
    began: Timestamp,
}

impl ProcessFunction for Alarms {
    type Key = u64;
    type In = u64;
    type Out = Row;
    type State = ();

    fn declare(_states: &mut Declarations) {}

    fn process(&mut self, _number: u64, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        let at = ctx.timestamp();
        ctx.timers().register(at)
    }

    fn on_timer(&mut self, at: Timestamp, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        let after = ctx.processing_time().0 - self.began.0;
        ctx.emit(Row(Kind::Windowed, at.0 as u64, after as u64));
        Ok(())
    }
}

const DEFAULT: &[(&str, &str)] = &[];

/// One record every 10 ms of event time, and every so many milliseconds of the clock.
fn numbers(pause_ms: u64) -> Numbers {
    Numbers::endless(1).paced(1, Duration::from_millis(pause_ms))
}

/// When each timer fired within five seconds: event time and time since the job's start, in milliseconds. The streams
/// keep their own watermarks and meet at the timers.
async fn fired(
    (sim, env): (&Control, &Env),
    settings: &[(&str, &str)],
    streams: impl IntoIterator<Item = Numbers>,
    strategy: WatermarkStrategy<u64>,
) -> BTreeMap<u64, u64> {
    let ledger = Ledger::default();
    let job = job(settings, streams, strategy, env.wall(), &ledger);
    let (_process, handle) = start(sim, job).await.unwrap();
    env.sleep(Duration::from_secs(5)).await;
    stop(handle).await;
    firings(&ledger)
}

fn job(
    settings: &[(&str, &str)],
    streams: impl IntoIterator<Item = Numbers>,
    strategy: WatermarkStrategy<u64>,
    began: Timestamp,
    ledger: &Ledger<Row>,
) -> Job {
    let own = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "1h")];
    let job = with_settings(Job::new("subject"), &[&own[..], settings].concat()).unwrap();
    let streams = streams.into_iter().enumerate().map(|(index, numbers)| {
        job.source(&format!("numbers-{index}"), numbers).watermarks(strategy.clone())
    });
    let alarms = Alarms { began };
    streams
        .reduce(Stream::union)
        .unwrap()
        .key_by(|_| 0_u64)
        .process("alarms", alarms)
        .sink("out", ledger.clone());
    job
}

/// Without a drain it fires no timer that would not have fired.
async fn stop(handle: JobHandle) {
    handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
    handle.join().await.unwrap();
}

fn firings(ledger: &Ledger<Row>) -> BTreeMap<u64, u64> {
    let rows = ledger.committed();
    assert!(rows.values().all(|times| *times == 1), "a timer fired twice: {rows:?}");
    rows.into_keys().map(|Row(_, at, after)| (at, after)).collect()
}

/// The milliseconds in which timers fired, each once.
fn instants(fired: &BTreeMap<u64, u64>) -> Vec<u64> {
    let mut instants: Vec<_> = fired.values().copied().collect();
    instants.dedup();
    instants
}

#[test]
fn timers_fire_in_mid_stream_at_the_watermark_interval_behind_the_slower_input() {
    for (settings, interval) in [(DEFAULT, 200), (&[("watermark.interval", "50ms")], 50)] {
        simulate(async |sim, env| {
            let streams = [numbers(10), numbers(20)];
            let fired = fired((sim, &env), settings, streams, WatermarkStrategy::monotonous()).await;
            // The slower stream reaches the event time `at` plus 10 ms, which lets the timer of `at` fire, as its number
            // `at / 10 + 2`; from then on it takes one interval at the most, and the flush of a batch.
            for (at, after) in &fired {
                let reached = 20 * (at / 10 + 2);
                assert!((reached..reached + interval + 10).contains(after), "{at} fired after {after} ms");
            }
            let last = fired.last_key_value().unwrap();
            assert!(*last.0 > 2_200, "the last timer that fired was {last:?}");
            let instants = instants(&fired);
            assert!(instants.len() as u64 > 4_500 / interval, "{instants:?}");
            let gaps = instants.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(gaps.clone().all(|gap| gap == interval), "{instants:?}");
        });
    }
}

#[test]
fn a_silent_input_holds_all_timers_back_for_ever() {
    simulate(async |sim, env| {
        let streams = [numbers(10), numbers(1_000_000)];
        let fired = fired((sim, &env), DEFAULT, streams, WatermarkStrategy::monotonous()).await;
        assert!(fired.is_empty(), "{fired:?}");
    });
}

#[test]
fn a_silent_input_that_may_be_idle_lets_go_and_counts_again_when_it_wakes_up() {
    simulate(async |sim, env| {
        // The second stream is silent but for one record of the event time 0, three seconds after the start.
        let streams = [numbers(10), numbers(3_000)];
        let strategy = WatermarkStrategy::monotonous().idle_after(Duration::from_secs(1));
        let fired = fired((sim, &env), DEFAULT, streams, strategy).await;
        let instants = instants(&fired);
        let within = |from: u64, to: u64| instants.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!(within(0, 1_000), 0, "it could not be known yet that it is silent: {instants:?}");
        assert!(within(1_000, 1_410) > 0, "it holds the timers back: {instants:?}");
        assert!(within(1_410, 3_010) >= 7, "at every interval: {instants:?}");
        // Awake, it counts with the event time of its one record until it is silent for long enough again.
        assert_eq!(within(3_010, 4_000), 0, "what wakes up is waited for: {instants:?}");
        assert!(within(4_000, 4_410) > 0, "it holds the timers back for ever: {instants:?}");
        let last = fired.last_key_value().unwrap();
        assert!(*last.0 > 4_500, "the last timer that fired was {last:?}");
    });
}

#[test]
fn a_stream_that_has_ended_does_not_end_one_that_is_idle() {
    let slow = || numbers(1_100);
    let bounded = Numbers::new(1, 20);
    let table = [
        // A short stream beside one that is idle between its records.
        ("1", vec![bounded.clone(), slow()]),
        // One split for two subtasks: one of them ends at once.
        ("2", vec![bounded.paced(1, Duration::from_millis(1_100))]),
    ];
    for (parallelism, streams) in table {
        simulate(async |sim, env| {
            let strategy = WatermarkStrategy::monotonous().idle_after(Duration::from_millis(300));
            let fired = fired((sim, &env), &[("parallelism", parallelism)], streams, strategy).await;
            let at: Vec<_> = fired.keys().copied().collect();
            assert_eq!(at, [0, 10, 20], "at parallelism {parallelism}");
            for (at, after) in fired {
                let reached = 1_100 * (at / 10 + 2);
                assert!((reached..reached + 210).contains(&after), "{at} fired after {after} ms");
            }
        });
    }
}

#[test]
fn after_a_restart_a_silent_stream_has_said_what_it_had_said_before() {
    // The first stream says 20 numbers at once, and again after a second and a half; the second is slow and behind it.
    let quick = || Numbers::endless(1).paced(20, Duration::from_millis(1_500));
    simulate(async |sim, env| {
        let (ledger, began) = (Ledger::default(), env.wall());
        let settings = [("checkpoints.interval", "50ms"), ("watermark.interval", "20ms")];
        let job = || job(&settings, [quick(), numbers(100)], WatermarkStrategy::monotonous(), began, &ledger);
        let (process, _handle) = start(sim, job()).await.unwrap();
        env.sleep(Duration::from_millis(1_650)).await;
        process.kill();
        assert_eq!(firings(&ledger).keys().next_back(), Some(&140), "before the restart");
        let (_process, handle) = start(sim, job()).await.unwrap();
        env.sleep(Duration::from_millis(1_000)).await;
        stop(handle).await;
        // Up to the event time of its last number, less a millisecond.
        let at: Vec<_> = firings(&ledger).into_keys().collect();
        assert_eq!(at, (0..=180).step_by(10).collect::<Vec<_>>());
    });
}

const ASIDE: OutputTag<u64> = OutputTag::new("aside");

/// Emits every number twice: as it is and aside.
#[derive(Clone)]
struct Twice;

impl ProcessFunction for Twice {
    type Key = ();
    type In = u64;
    type Out = u64;
    type State = SideOutput<u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.side_output(ASIDE)
    }

    fn process(&mut self, number: u64, aside: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        ctx.emit(number);
        ctx.emit_to(*aside, number);
        Ok(())
    }
}

#[test]
fn a_side_output_has_the_watermarks_of_its_operator_and_not_of_what_follows_it() {
    // The strategy behind the operator is far behind the one before it; with the end they are all the same.
    for (first, second) in [(0, 1_000_000), (1_000_000, 0)] {
        for chained in [true, false] {
            simulate(async |sim, env| {
                let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "1h")];
                let job = with_settings(Job::new("subject"), &settings).unwrap();
                let behind = |ms| WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(ms));
                let twice =
                    job.source("numbers", numbers(10)).watermarks(behind(first)).process("twice", Twice);
                let (aside, again) = (twice.side_output(ASIDE), twice.watermarks(behind(second)));
                let again = if chained { again } else { again.start_new_chain() };
                let ledgers = [("aside", aside), ("again", again)].map(|(uid, stream)| {
                    let (ledger, alarms) = (Ledger::default(), Alarms { began: env.wall() });
                    let fired = stream.key_by(|_| 0_u64).process(uid, alarms);
                    fired.sink(&format!("{uid}-out"), ledger.clone());
                    ledger
                });
                let (_process, handle) = start(sim, job).await.unwrap();
                env.sleep(Duration::from_secs(1)).await;
                stop(handle).await;
                let fired = ledgers.map(|ledger| !firings(&ledger).is_empty());
                assert_eq!(fired, [first == 0, second == 0], "chained: {chained}");
            });
        }
    }
}

#[test]
fn a_strategy_replaces_the_idleness_from_further_up() {
    for chained in [true, false] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let settings = [("checkpoints.url", "/checkpoints"), ("checkpoints.interval", "1h")];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let monotonous = WatermarkStrategy::monotonous;
            let first = monotonous().idle_after(Duration::from_millis(500));
            let silent = job.source("silent", numbers(1_000_000)).watermarks(first).watermarks(monotonous());
            let silent = if chained { silent } else { silent.start_new_chain() };
            let alarms = Alarms { began: env.wall() };
            job.source("numbers", numbers(10))
                .watermarks(monotonous())
                .union(silent)
                .key_by(|_| 0_u64)
                .process("alarms", alarms)
                .sink("out", ledger.clone());
            let (_process, handle) = start(sim, job).await.unwrap();
            env.sleep(Duration::from_secs(3)).await;
            stop(handle).await;
            assert_eq!(firings(&ledger), BTreeMap::new(), "chained: {chained}");
        });
    }
}
