//! What a failure does: who is named, what the restart strategy makes of it, what is never restarted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use checkpoint::{coordinator::CheckpointOutcome, history};
use env::{FaultPoint, Monotonic, sim::FaultAction};
use tidegate_engine::{
    cluster::{attempt::Ask, status::JobStatus},
    prelude::*,
};

use crate::{
    ledger::{Ledger, Moods},
    load::Paced,
    numbers::Numbers,
    world::{Death, Kind, Row, assert_says, live, run, simulate, start, with_settings},
};

const URL: (&str, &str) = ("checkpoints.url", "/checkpoints");
const PACE: Duration = Duration::from_millis(10);

fn numbers() -> Numbers {
    Numbers::new(1, 100).paced(1, PACE)
}

/// A job whose only operator does this to each number.
fn mapping(settings: &[(&str, &str)], map: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Job {
    let job = with_settings(Job::new("subject"), settings).unwrap();
    job.source("numbers", numbers()).map(map).name("parse").sink("out", Ledger::default());
    job
}

fn panics_at_42(number: u64) -> u64 {
    assert!(number != 42, "no number may be\n{number}");
    number
}

#[test]
fn a_panic_on_one_record_ends_by_the_restart_strategy_and_says_where() {
    simulate(async |sim, _| {
        let settings = [URL, ("checkpoints.interval", "100ms"), ("restart", "fixed-delay:2:1s")];
        let (_process, handle) = start(sim, mapping(&settings, panics_at_42)).await.unwrap();
        let control = handle.control().clone();
        let error = handle.join().await.unwrap_err();
        let texts =
            ["all 2 restarts are used up", "operator parse", "subtask 0", "record ", "no number may be 42"];
        assert_says(&error, ErrorKind::User, &texts);
        assert_says(&error, ErrorKind::User, &["source at split 0, number 4"]);
        let view = control.view();
        assert_eq!((view.restarts, view.failures.len(), view.status), (2, 3, JobStatus::Failed));
    });
}

/// When each failure of a job that always fails came.
async fn failures(
    sim: &env::sim::Control,
    strategy: &str,
    wait: Duration,
) -> (Vec<Monotonic>, Option<Error>) {
    let settings = [URL, ("checkpoints.interval", "100ms"), ("restart", strategy)];
    let (process, handle) = start(sim, mapping(&settings, |_| panic!("always"))).await.unwrap();
    let control = handle.control().clone();
    let ended = sim_timeout(sim, wait, handle.join()).await;
    let times = control.view().failures.into_iter().map(|(at, _)| at).collect();
    process.kill();
    (times, ended.map(|ended| ended.unwrap_err()))
}

async fn sim_timeout<T>(sim: &env::sim::Control, span: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (_clock, env) = sim.process("clock");
    env.timeout(span, work).await
}

/// The seconds between failures; an attempt itself takes far less than one.
fn gaps(times: &[Monotonic]) -> Vec<u64> {
    times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect()
}

#[test]
fn each_strategy_restarts_as_it_says() {
    simulate(async |sim, _| {
        let (times, error) = failures(sim, "none", Duration::from_secs(60)).await;
        assert_eq!(times.len(), 1);
        assert_says(&error.unwrap(), ErrorKind::User, &["always"]);

        let (times, error) = failures(sim, "fixed-delay:3:5s", Duration::from_secs(60)).await;
        assert_eq!(gaps(&times), [5, 5, 5]);
        assert_says(&error.unwrap(), ErrorKind::User, &["all 3 restarts are used up", "always"]);

        let (times, error) = failures(sim, "failure-rate:2:1m:3s", Duration::from_secs(60)).await;
        assert_eq!(gaps(&times), [3, 3]);
        assert_says(&error.unwrap(), ErrorKind::User, &["more than 2 failures within 60s", "always"]);
        // Rare enough, it restarts for ever.
        let (times, error) = failures(sim, "failure-rate:2:5s:3s", Duration::from_secs(60)).await;
        assert!(error.is_none() && times.len() > 15, "{times:?}");

        let strategy = "exponential-delay:1s:2:10s:1h:0";
        let (times, error) = failures(sim, strategy, Duration::from_secs(40)).await;
        assert_eq!(gaps(&times), [1, 2, 4, 8, 10, 10]);
        assert!(error.is_none());
    });
}

#[test]
fn a_job_that_waits_for_its_restart_can_be_cancelled_and_nothing_else() {
    simulate(async |sim, env| {
        let settings = [URL, ("restart", "fixed-delay:9:1m")];
        let (_process, handle) = start(sim, mapping(&settings, |_| panic!("always"))).await.unwrap();
        env.sleep(Duration::from_secs(5)).await;
        assert_eq!(handle.control().view().status, JobStatus::Restarting);
        let refused = handle.control().ask(Ask::Checkpoint).await.unwrap_err();
        assert_says(&refused, ErrorKind::Retryable, &["the job is restarting"]);
        let asked = env.now();
        handle.control().ask(Ask::Cancel).await.unwrap();
        assert_eq!(handle.join().await.unwrap().status, JobStatus::Cancelled);
        assert!(env.now().since(asked) < Duration::from_secs(1));
    });
}

/// Fails in one place.
#[derive(Clone)]
struct FailsAt(&'static str);

impl FailsAt {
    fn here(&self, place: &str) -> Result<()> {
        if self.0 == place { Err(Error::user(format!("it fails in {place}"))) } else { Ok(()) }
    }
}

impl ProcessFunction for FailsAt {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = ();

    fn declare(_states: &mut Declarations) {}

    fn open(&mut self, _context: &RuntimeContext) -> Result<()> {
        self.here("open")
    }

    fn process(&mut self, _number: u64, _state: &(), ctx: &mut Context<'_, Self>) -> Result<()> {
        let soon = ctx.processing_time() + Duration::from_millis(1);
        ctx.timers().register_processing(soon)?;
        ctx.timers().register(Timestamp::MAX)?;
        self.here("process")
    }

    fn on_timer(&mut self, _at: Timestamp, _state: &(), _ctx: &mut Context<'_, Self>) -> Result<()> {
        self.here("timer")
    }

    fn on_processing_timer(
        &mut self,
        _at: Timestamp,
        _state: &(),
        _ctx: &mut Context<'_, Self>,
    ) -> Result<()> {
        self.here("processing timer")
    }

    fn close(&mut self) -> Result<()> {
        self.here("close")
    }
}

#[test]
fn errors_name_operator_and_place_wherever_user_code_is_called() {
    simulate(async |sim, _| {
        for place in ["open", "process", "timer", "processing timer"] {
            let url = format!("/checkpoints/{}", place.replace(' ', "-"));
            let settings = [("checkpoints.url", &*url), ("restart", "none")];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            job.source("numbers", numbers())
                .key_by(|number| *number)
                .process("fails", FailsAt(place))
                .sink("out", Ledger::default());
            let error = run(sim, job).await.unwrap_err();
            assert_says(&error, ErrorKind::User, &["operator fails", &format!("it fails in {place}")]);
        }
    });
}

/// Counts the subtasks that were closed, and fails in this one.
#[derive(Clone)]
struct Closes {
    failing: u32,
    closed: Arc<AtomicU64>,
    subtask: u32,
}

impl RichFunction for Closes {
    type In = u64;
    type Out = u64;

    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.subtask = context.subtask.0;
        Ok(())
    }

    fn call(&mut self, record: u64, out: &mut Collector<'_, u64>) -> Result<()> {
        out.emit(record);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.closed.fetch_add(1, Ordering::Relaxed);
        if self.subtask == self.failing { Err(Error::user("it cannot be closed")) } else { Ok(()) }
    }
}

#[test]
fn an_error_in_close_is_told_and_everything_else_is_closed_and_committed() {
    for failing in 0..3 {
        simulate(async |sim, _| {
            let (ledger, closed) = (Ledger::default(), Arc::<AtomicU64>::default());
            let closes = || Closes { failing, closed: closed.clone(), subtask: 0 };
            let settings =
                [URL, ("checkpoints.interval", "100ms"), ("parallelism", "3"), ("restart", "none")];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let first = job.source("numbers", Numbers::new(6, 100)).rich(closes()).name("first");
            first.rich(closes()).name("second").sink("out", ledger.clone());
            let ended = run(sim, job).await.unwrap();
            assert_eq!((ended.status, ended.restarts), (JobStatus::Finished, 0));
            assert_eq!(closed.load(Ordering::Relaxed), 6, "both operators of each of three tasks");
            assert_eq!(ledger.committed().len(), 600);
            let told: Vec<_> =
                sim.printed().into_iter().filter(|(_, line)| line.contains("closed")).collect();
            assert_eq!(told.len(), 1, "{told:?}");
            let texts = ["after the end of the job", "operator first, close", "it cannot be closed"];
            assert!(texts.iter().all(|text| told[0].1.contains(text)), "{told:?}");
        });
    }
}

#[test]
fn a_panic_in_a_key_selector_or_partitioner_is_the_users_and_names_the_operator() {
    simulate(async |sim, _| {
        let job = |url| with_settings(Job::new("subject"), &[("checkpoints.url", url), ("restart", "none")]);
        let keyed = job("/keyed").unwrap();
        let parsed = keyed.source("numbers", Numbers::new(1, 100)).map(|number| number).name("parse");
        let selected = parsed.key_by(|number| if *number > 7 { panic!("no key") } else { *number });
        selected.count("count").map(|(key, _)| key).sink("out", Ledger::default());
        let error = run(sim, keyed).await.unwrap_err();
        let place = ["operator parse, subtask 0", "output record 9", "source at split ", "panicked: no key"];
        assert_says(&error, ErrorKind::User, &place);

        // Also where the records go to several places.
        let cloned = job("/cloned").unwrap();
        let parsed = cloned.source("numbers", Numbers::new(1, 100)).map(|number| number).name("parse");
        let selected = parsed.clone().key_by(|number| if *number > 7 { panic!("no key") } else { *number });
        selected.count("count").map(|(key, _)| key).sink("out", Ledger::default());
        parsed.sink("other", Ledger::default()).disable_chaining();
        let error = run(sim, cloned).await.unwrap_err();
        assert_says(&error, ErrorKind::User, &place);

        let custom = job("/custom").unwrap();
        let parsed = custom.source("numbers", numbers()).map(|number| number).name("parse").parallelism(1);
        parsed.partition_custom(|_, _| panic!("no target")).sink("out", Ledger::default()).parallelism(2);
        let error = run(sim, custom).await.unwrap_err();
        let place = ["operator parse, subtask 0", "output record 1 ", "panicked: no target"];
        assert_says(&error, ErrorKind::User, &place);
    });
}

#[test]
fn a_source_error_restarts_only_where_that_can_help() {
    simulate(async |sim, _| {
        let kinds = [
            (ErrorKind::Retryable, 2),
            (ErrorKind::Unavailable, 2),
            (ErrorKind::User, 2),
            (ErrorKind::BadInput, 1),
            (ErrorKind::Corrupt, 1),
            (ErrorKind::Conflict, 1),
            (ErrorKind::InvalidJob, 1),
            (ErrorKind::IncompatibleState, 1),
        ];
        for (kind, attempts) in kinds {
            let url = format!("/{}", kind.name());
            let settings = [("checkpoints.url", &*url), ("restart", "fixed-delay:1:1s")];
            let job = with_settings(Job::new("subject"), &settings).unwrap();
            let failures = Arc::new(AtomicU64::new(0));
            let counted = Arc::clone(&failures);
            let source = numbers().failing(move |number| {
                (number == 9).then(|| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    Error::new(kind, "record 9 cannot be read")
                })
            });
            job.source("numbers", source).sink("out", Ledger::default());
            let error = run(sim, job).await.unwrap_err();
            assert_says(&error, kind, &["source numbers", "record 9 cannot be read"]);
            assert_eq!(failures.load(Ordering::Relaxed), attempts, "{kind:?}");
        }
    });
}

/// Until its start record is there, a job has not begun: the next try is a first start again.
#[test]
fn a_first_start_that_fails_before_its_record_is_tried_again_as_a_first_start() {
    for (point, action) in [
        (FaultPoint::StartRecordBefore, FaultAction::Kill),
        (FaultPoint::StartRecordBefore, FaultAction::Fail(ErrorKind::Retryable)),
        (FaultPoint::StartRecordAfter, FaultAction::Fail(ErrorKind::Retryable)),
    ] {
        for from in ["auto", "none"] {
            simulate(async |sim, env| {
                let settings = [URL, ("restart", "fixed-delay:1:1s"), ("from", from)];
                let ledger = Ledger::default();
                sim.arm(point, 1, action);
                let (process, own) = sim.process("job");
                let lived = live(to_ledger(&settings, numbers(), &ledger), &own, &process).await;
                let restarts = match lived {
                    Death::Ended(ended) => ended.unwrap().restarts,
                    Death::Killed => {
                        let store = env.open_store("/checkpoints").unwrap();
                        assert!(history::open(&env, store).await.unwrap().is_none(), "nothing has begun");
                        run(sim, to_ledger(&settings, numbers(), &ledger)).await.unwrap().restarts
                    }
                };
                assert_eq!(restarts, u32::from(action != FaultAction::Kill), "{point:?}, {action:?}, {from}");
                assert_eq!(ledger.committed().len(), 100);
            });
        }
    }
}

fn to_ledger(settings: &[(&str, &str)], source: Numbers, ledger: &Ledger<Row>) -> Job {
    let job = with_settings(Job::new("subject"), settings).unwrap();
    job.source("numbers", source).map(|number| Row(Kind::Count, 0, number)).sink("out", ledger.clone());
    job
}

#[test]
fn promised_output_that_is_lost_stops_the_job_at_once() {
    simulate(async |sim, _| {
        let settings = [URL, ("checkpoints.interval", "200ms"), ("restart", "fixed-delay:9:1s")];
        let ledger = Ledger::default();
        ledger.lose();
        let (_process, handle) = start(sim, to_ledger(&settings, numbers(), &ledger)).await.unwrap();
        let control = handle.control().clone();
        let error = handle.join().await.unwrap_err();
        assert_says(&error, ErrorKind::Lost, &["sink out", "checkpoint 1", "records are gone"]);
        assert_eq!(control.view().restarts, 0);
    });
}

#[test]
fn a_commit_that_is_refused_for_now_is_tried_until_it_is_done() {
    simulate(async |sim, _| {
        let settings = [URL, ("checkpoints.interval", "200ms")];
        let ledger = Ledger::default();
        ledger.set_moods(Moods { retry: 0.8, lose_reply: 0.5, latency: Duration::from_millis(5) });
        let result = run(sim, to_ledger(&settings, numbers(), &ledger)).await.unwrap();
        assert_eq!((result.status, result.restarts), (JobStatus::Finished, 0));
        assert!(ledger.retries() > 3);
        assert_eq!(ledger.committed().len(), 100);
        assert_eq!((ledger.pending(), ledger.breaches()), (0, Vec::new()));
    });
}

#[test]
fn checkpoints_that_take_too_long_fail_and_too_many_fail_the_job() {
    let slow = [
        URL,
        ("checkpoints.interval", "1s"),
        ("checkpoints.timeout", "1s"),
        ("checkpoints.tolerable-failures", "2"),
        ("restart", "none"),
    ];
    simulate(async |sim, _| {
        let ledger = Ledger::default();
        ledger.set_moods(Moods { latency: Duration::from_secs(3_600), ..Moods::default() });
        let endless = Numbers::endless(1).paced(1, PACE);
        let (_process, handle) = start(sim, to_ledger(&slow, endless, &ledger)).await.unwrap();
        // The sink is asked what it holds before anything starts; only then do the checkpoints begin.
        let error =
            sim_timeout(sim, Duration::from_secs(5 * 3_600), handle.join()).await.unwrap().unwrap_err();
        let texts = ["3 checkpoints in a row failed", "it took longer than 1s", "missing 1 tasks"];
        assert_says(&error, ErrorKind::Retryable, &texts);
    });
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let endless = Numbers::endless(1).paced(1, PACE);
        let settings: Vec<_> = slow.into_iter().chain([("checkpoints.fail-job", "false")]).collect();
        let (_process, handle) = start(sim, to_ledger(&settings, endless, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(2)).await;
        ledger.set_moods(Moods { latency: Duration::from_secs(20), ..Moods::default() });
        env.sleep(Duration::from_secs(30)).await;
        let view = handle.control().view();
        assert!(view.checkpoints.failed > 3, "{:?}", view.checkpoints);
        ledger.set_moods(Moods::default());
        env.sleep(Duration::from_secs(60)).await;
        assert!(handle.control().view().checkpoints.completed > view.checkpoints.completed);
        assert_eq!(handle.control().view().restarts, 0);
    });
}

#[test]
fn checkpoints_keep_their_distance_and_their_number() {
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [URL, ("checkpoints.interval", "100ms"), ("checkpoints.min-pause", "700ms")];
        let endless = Numbers::endless(1).paced(1, PACE);
        let (process, handle) = start(sim, to_ledger(&settings, endless, &ledger)).await.unwrap();
        env.sleep(Duration::from_secs(20)).await;
        let all = handle.control().view().checkpoints.history;
        assert!(all.len() > 10, "{all:?}");
        for (one, next) in all.iter().zip(all.iter().skip(1)) {
            let pause = next.triggered.since(one.triggered + one.duration.unwrap());
            assert!(pause >= Duration::from_millis(700), "{pause:?}");
        }
        process.kill();
    });
    simulate(async |sim, env| {
        let ledger = Ledger::default();
        let settings = [URL, ("checkpoints.interval", "100ms"), ("checkpoints.max-concurrent", "2")];
        let endless = Numbers::endless(1).paced(1, PACE);
        let (_process, handle) = start(sim, to_ledger(&settings, endless, &ledger)).await.unwrap();
        ledger.set_moods(Moods { latency: Duration::from_millis(400), ..Moods::default() });
        let mut most = 0;
        for _ in 0..500 {
            env.sleep(Duration::from_millis(20)).await;
            let all = handle.control().view().checkpoints.history;
            let under_way = all.iter().filter(|one| one.outcome == CheckpointOutcome::InProgress);
            most = most.max(under_way.count());
        }
        assert_eq!(most, 2);
        assert!(handle.control().view().checkpoints.completed > 5);
    });
}

#[test]
fn at_least_once_mode_counts_every_record_and_may_count_some_again() {
    // One source is held back by a slow sink, and its barriers with it: at the count, those of the other one come long
    // before them.
    let most_of = |mode: &'static str| {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let job = || {
                let settings = [
                    URL,
                    ("checkpoints.interval", "50ms"),
                    ("checkpoints.mode", mode),
                    ("batch.records", "1"),
                    ("channel.records", "2"),
                ];
                let job = with_settings(Job::new("subject"), &settings).unwrap();
                let slow = job.source("slow", Numbers::new(1, 10).from(1_000));
                drop(slow.clone().sink("drag", Paced(Duration::from_millis(100))).disable_chaining());
                let fast = job.source("fast", Numbers::new(1, 490).paced(3, PACE));
                fast.union(slow)
                    .key_by(|_| 0_u64)
                    .count("count")
                    .map(|(key, count)| Row(Kind::Count, key, count))
                    .sink("out", ledger.clone());
                job
            };
            let (process, _handle) = start(sim, job()).await.unwrap();
            env.sleep(Duration::from_millis(700)).await;
            process.kill();
            run(sim, job()).await.unwrap();
            ledger.committed().into_keys().map(|Row(_, _, count)| count).max().unwrap()
        })
    };
    assert_eq!(most_of("exactly-once"), 500);
    let most = most_of("at-least-once");
    assert!((501..700).contains(&most), "{most}");
}
