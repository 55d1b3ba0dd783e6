//! A file sink with a new name, in a whole job: it takes its directory over, and what was pending under the old name
//! appears exactly once, whatever dies on the way.

use std::{collections::BTreeSet, path::Path, time::Duration};

use engine::prelude::*;
use env::{
    Env, FaultPoint,
    sim::{Control, FaultAction, Options, Simulation},
};
use tidegate_connectors::{FileSink, GeneratorSource};

const OUT: &str = "/out";
const RECORDS: u64 = 400;

/// Numbers, written line by line into files of a few lines.
fn job(sink: &str, formerly: &[&str], parallelism: &str) -> Job {
    let settings = [
        ("rest", "off"),
        ("checkpoints.url", "/checkpoints"),
        ("checkpoints.interval", "100ms"),
        ("restart", "fixed-delay:3:100ms"),
        ("parallelism", parallelism),
    ];
    let set = |job: Job, (name, value): (&str, &str)| job.set(name, value).unwrap();
    let job = settings.into_iter().fold(Job::new("subject"), set);
    let numbers = GeneratorSource::new(|number| number).count(RECORDS).splits(2).rate(400.0);
    let sink = job.source("numbers", numbers).sink(sink, FileSink::lines(OUT).roll_at(40));
    formerly.iter().fold(sink, |sink, name| sink.formerly(name));
    job
}

/// Runs a job in a process of its own until it ends, or its process dies (`None`).
async fn life(sim: &Control, job: Job) -> Option<Result<String>> {
    let (process, env) = sim.process("job");
    let run = async { job.start(&env).await?.join().await };
    let ended = tokio::select! {
        biased;
        () = process.died() => return None,
        ended = run => ended,
    };
    let alive = process.is_alive();
    process.kill();
    alive.then(|| ended.map(|result| result.how))
}

fn simulate(body: impl AsyncFnOnce(&Control, Env)) {
    let sim = Simulation::new(1);
    sim.set_options(Options { yields: 0.0, blocking_delay: Duration::ZERO, ..sim.options() });
    let control = sim.control();
    sim.run(async |env| body(&control, env).await);
}

fn text(env: &Env, path: &Path) -> String {
    let file = env.files().open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_full(0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The names of the parts in a directory.
fn parts(env: &Env, dir: &str) -> BTreeSet<String> {
    let paths = env.files().read_dir(Path::new(dir)).unwrap();
    let names = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| name.starts_with("part-")).collect()
}

fn owner(env: &Env) -> String {
    let text = text(env, &Path::new(OUT).join(".tidegate"));
    text.lines().find_map(|line| line.strip_prefix("sink ")).unwrap().to_owned()
}

fn assert_whole(env: &Env) {
    let texts: Vec<_> = parts(env, OUT).iter().map(|name| text(env, &Path::new(OUT).join(name))).collect();
    let mut numbers: Vec<u64> =
        texts.iter().flat_map(|text| text.lines()).map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..RECORDS).collect::<Vec<_>>());
}

/// A job of the old name that dies with files pending that its history has completed.
async fn leave_pending(sim: &Control, env: &Env, point: FaultPoint) -> BTreeSet<String> {
    sim.arm(point, 3, FaultAction::Kill);
    assert!(life(sim, job("old", &[], "2")).await.is_none(), "{point:?}");
    let pending = parts(env, "/out/.pending");
    assert!(!pending.is_empty(), "{point:?}");
    assert_eq!(owner(env), "old");
    pending
}

#[test]
fn what_was_pending_under_the_old_name_appears_exactly_once_whatever_dies() {
    let mut crashes = 0;
    let points = [FaultPoint::CompletedRecordAfter, FaultPoint::PublishBefore, FaultPoint::PublishAfter];
    for (point, change) in points.into_iter().flat_map(|point| (1..=40).map(move |change| (point, change))) {
        simulate(async |sim, env| {
            let pending = leave_pending(sim, &env, point).await;
            sim.disk().crash_at(change);
            match life(sim, job("new", &["older", "old"], "3")).await {
                None => crashes += 1,
                Some(ended) => assert_eq!(ended.unwrap(), "finished"),
            }
            let ended = life(sim, job("new", &["older", "old"], "1")).await;
            assert_eq!(ended.unwrap().unwrap(), "finished", "{point:?}, change {change}");
            assert_eq!(owner(&env), "new");
            assert!(pending.is_subset(&parts(&env, OUT)), "{point:?}, change {change}");
            assert_eq!(parts(&env, "/out/.pending"), BTreeSet::new());
            assert_whole(&env);
        });
    }
    assert_eq!(crashes, 120);
}

#[test]
fn once_taken_over_the_old_name_is_not_needed_any_more() {
    simulate(async |sim, env| {
        leave_pending(sim, &env, FaultPoint::CompletedRecordAfter).await;
        sim.arm(FaultPoint::CompletedRecordAfter, 2, FaultAction::Kill);
        assert!(life(sim, job("new", &["old"], "2")).await.is_none());
        assert_eq!(life(sim, job("new", &[], "2")).await.unwrap().unwrap(), "finished");
        assert_whole(&env);
    });
}
