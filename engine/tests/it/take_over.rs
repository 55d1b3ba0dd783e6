//! Processes that take the same job over at the same time. Whatever the order in which they come by, within ten seconds
//! exactly one of them runs and completes checkpoints, all others have ended fenced, and the output is gapless.
//!
//! Replay one seed with `TIDEGATE_SEED=n`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use checkpoint::snapshots;
use env::{
    Env, Rng,
    sim::{Process, Simulation, StoreFaults},
};
use futures::future::{join_all, pending};
use rand::{RngExt, SeedableRng};
use tidegate_engine::{
    cluster::{attempt::Ask, job_manager::JobResult, local::JobControl},
    prelude::*,
};

use crate::{
    counting::{assert_gapless, counting, endless},
    exactly_once_sim::seed_from_outside,
    ledger::{Ledger, Moods},
    world::{Row, assert_says, run as start_and_join, start},
};

const SEEDS: u64 = 60;
/// By then exactly one process runs and completes checkpoints.
const LIMIT: Duration = Duration::from_secs(10);
/// Long enough for a checkpoint at any of the intervals.
const ONE_MORE_CHECKPOINT: Duration = Duration::from_secs(2);

/// Who comes when, and how slow the world is.
#[derive(Debug)]
struct Scenario {
    /// When each process starts; the first one at once.
    starts: Vec<Duration>,
    /// The first one runs already, without `--take-over`, for this time.
    settled: Option<Duration>,
    interval: Duration,
    url: &'static str,
    latency: Duration,
    moods: Moods,
}

impl Scenario {
    fn draw(seed: u64) -> Self {
        let rng = &mut Rng::seed_from_u64(seed);
        let within = |rng: &mut Rng, longest: u64| Duration::from_millis(rng.random_range(0..=longest));
        let apart = [0, 5, 100, 2_000][rng.random_range(0..4)];
        let mut starts = vec![Duration::ZERO];
        starts.extend((1..rng.random_range(2..=4)).map(|_| within(rng, apart)));
        let slowest = [0, 2, 20][rng.random_range(0..3)];
        Self {
            starts,
            settled: rng.random_bool(0.5).then(|| within(rng, 1_000)),
            interval: Duration::from_millis(rng.random_range(10..200)),
            url: if rng.random_bool(0.5) { "/checkpoints" } else { "sim:checkpoints" },
            latency: within(rng, slowest),
            moods: Moods { latency: within(rng, slowest), ..Moods::default() },
        }
    }

    fn job(&self, ledger: &Ledger<Row>, take_over: bool) -> Job {
        let interval = format!("{}ms", self.interval.as_millis());
        let settings = [
            ("checkpoints.url", self.url),
            ("checkpoints.interval", &*interval),
            // What a start has read of the directory is deleted soon after.
            ("checkpoints.retained", "1"),
            ("snapshot.merge-fan-in", "2"),
            ("take-over", if take_over { "true" } else { "false" }),
        ];
        counting(&endless(), &settings, ledger)
    }
}

/// A process that wants the job.
struct Rival {
    process: Process,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    control: Option<JobControl>,
    end: Option<Result<JobResult>>,
}

impl Rival {
    /// Lives in its process, and notes what becomes of it.
    async fn live(&self, env: Env, job: Job) {
        let ended = match job.start(&env).await {
            Ok(handle) => {
                self.seen.lock().unwrap().control = Some(handle.control().clone());
                handle.join().await
            }
            Err(error) => Err(error),
        };
        self.seen.lock().unwrap().end = Some(ended);
    }

    /// How it ended, if it has.
    fn end(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        let told = |end: &Result<JobResult>| match end {
            Ok(result) => result.how.clone(),
            Err(error) => format!("{:?}: {error}", error.kind()),
        };
        seen.end.as_ref().map(told)
    }

    fn control(&self) -> JobControl {
        self.seen.lock().unwrap().control.clone().unwrap()
    }
}

/// How many processes wanted the job of this seed.
fn run(seed: u64) -> usize {
    let scenario = Scenario::draw(seed);
    let sim = Simulation::new(seed).with_limit(Duration::from_secs(600));
    let ledger = Ledger::default();
    ledger.set_moods(scenario.moods);
    sim.run(async |observer| {
        sim.set_store_faults(StoreFaults { latency: scenario.latency, ..StoreFaults::default() });
        let mut rivals = Vec::new();
        let mut lives = Vec::new();
        for (index, after) in scenario.starts.iter().enumerate() {
            let ((process, env), seen) = (sim.process("rival"), Arc::default());
            rivals.push(Rival { process, seen });
            lives.push((index, *after + scenario.settled.filter(|_| index > 0).unwrap_or_default(), env));
        }
        let lives = lives.into_iter().map(|(index, after, env)| {
            let job = scenario.job(&ledger, index > 0 || scenario.settled.is_none());
            let (rival, world) = (&rivals[index], observer.clone());
            async move {
                world.sleep(after).await;
                rival.live(env, job).await;
            }
        });
        let lives = async {
            join_all(lives).await;
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = judge(&sim, &observer, &scenario, &ledger, &rivals) => {}
            () = lives => {}
        }
        rivals.iter().for_each(|rival| rival.process.kill());
        settle(&sim, &observer, &scenario, &ledger).await;
        rivals.len()
    })
}

/// Ten seconds after the last one came.
async fn judge(
    sim: &Simulation,
    observer: &Env,
    scenario: &Scenario,
    ledger: &Ledger<Row>,
    rivals: &[Rival],
) {
    let last = scenario.starts.iter().max().copied().unwrap_or_default();
    observer.sleep(last + scenario.settled.unwrap_or_default() + LIMIT).await;
    let ends: Vec<_> = rivals.iter().map(Rival::end).collect();
    let told = || format!("seed {}, {scenario:?}: {ends:#?}", sim.seed());
    assert_eq!(ends.iter().filter(|end| end.is_none()).count(), 1, "{}", told());
    let fenced = |end: &String| end.starts_with("Fenced: ") && end.contains("was taken over by attempt ");
    assert!(ends.iter().flatten().all(fenced), "{}", told());
    let winner = rivals.iter().find(|rival| rival.end().is_none()).unwrap().control();
    let before = winner.view().checkpoints.completed;
    observer.sleep(ONE_MORE_CHECKPOINT).await;
    assert!(winner.view().checkpoints.completed > before, "{}", told());
    // Whoever starts by mistake is told who runs, also where that process has taken the job over.
    if scenario.url.starts_with('/') {
        let error = start_and_join(sim, scenario.job(ledger, false)).await.unwrap_err();
        assert_says(&error, ErrorKind::Conflict, &["is in use by pid", "--take-over"]);
    }
    winner.ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
}

/// What fenced processes prepared last is thrown away by the next start, and then all is as after one life.
async fn settle(sim: &Simulation, observer: &Env, scenario: &Scenario, ledger: &Ledger<Row>) {
    let (process, handle) = start(sim, scenario.job(ledger, false)).await.unwrap();
    observer.sleep(ONE_MORE_CHECKPOINT).await;
    handle.control().ask(Ask::Stop { drain: false, savepoint: None }).await.unwrap();
    handle.join().await.unwrap();
    process.kill();
    assert_gapless(ledger, 500);
    let store = observer.open_store(scenario.url).unwrap();
    let report = snapshots::verify(observer, store, &mut |_| {}).await.unwrap();
    assert!(report.is_whole(), "{:?}", report.problems);
}

#[test]
fn of_processes_that_take_over_at_once_exactly_one_goes_on() {
    if let Some(seed) = seed_from_outside() {
        run(seed);
        return;
    }
    let mut sizes = BTreeMap::<usize, u64>::new();
    for seed in 0..SEEDS {
        *sizes.entry(run(seed)).or_default() += 1;
    }
    assert!((2..=4).all(|size| sizes.get(&size) >= Some(&10)), "{sizes:?}");
}
