//! A damaged newest checkpoint: the job falls back to the one before it where every sink proves that nothing of the
//! damaged one was committed, and refuses with the choices where one has. Whatever dies on the way, the output is right.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use checkpoint::{
    history::{self, CompletedCheckpoint, Standing},
    manifest,
};
use env::{Env, sim::Control};
use tidegate_engine::{
    api::sink::{PlainWriter, Sink, SinkContext},
    prelude::*,
    record::Batch,
};

use crate::{
    counting::{KEYS, assert_gapless, counting},
    ledger::{Ledger, Moods, counted},
    numbers::Numbers,
    world::{Death, Kind, Row, assert_says, live, run, simulate, start, with_settings},
};

const SETTINGS: [(&str, &str); 4] = [
    ("checkpoints.url", "/checkpoints"),
    ("checkpoints.interval", "200ms"),
    ("parallelism", "2"),
    ("restart", "fixed-delay:3:100ms"),
];

fn numbers() -> Numbers {
    Numbers::new(2, 600).paced(3, Duration::from_millis(10))
}

fn job(ledger: &Ledger<Row>) -> Job {
    counting(&numbers(), &SETTINGS, ledger)
}

/// The row of each number, as a run without failures writes it.
fn rows() -> Vec<Row> {
    let row = |(number, _)| Row(Kind::Count, number % KEYS, number / KEYS + 1);
    numbers().all().map(row).collect()
}

fn assert_exact(ledger: &Ledger<Row>) {
    assert_eq!(ledger.committed(), counted(rows()));
    assert_gapless(ledger, 1_200);
}

async fn standing(env: &Env) -> Standing {
    let newest = history::open(env, env.open_store("/checkpoints").unwrap()).await.unwrap().unwrap();
    newest.standing.clone()
}

/// The files of a checkpoint, its manifest apart.
async fn files(env: &Env, completed: &CompletedCheckpoint) -> BTreeSet<String> {
    let store = env.open_store("/checkpoints").unwrap();
    let manifest = manifest::read(env, &*store, &completed.manifest).await.unwrap();
    manifest.files().into_iter().map(|file| file.path.clone()).collect()
}

/// What is damaged of the newest checkpoint.
#[derive(Clone, Copy, Debug)]
enum Part {
    Manifest,
    /// A file that the checkpoint before it does not have.
    Run,
}

/// Changes one byte of the newest checkpoint; returns the file and what stood before it.
async fn damage(sim: &Control, env: &Env, part: Part) -> (String, CompletedCheckpoint) {
    let standing = standing(env).await;
    let [.., before, newest] = standing.completed.as_slice() else { panic!("{:?}", standing.completed) };
    let file = match part {
        Part::Manifest => newest.manifest.path.clone(),
        Part::Run => {
            let shared = files(env, before).await;
            files(env, newest).await.into_iter().find(|file| !shared.contains(file)).unwrap()
        }
    };
    let path = Path::new("/checkpoints").join(&file);
    sim.disk()
        .damage(&path, |bytes| {
            let at = bytes.len() / 2;
            bytes[at] ^= 1
        })
        .unwrap();
    (file, before.clone())
}

/// A job that dies when its last checkpoints are in the history and nothing of them is committed.
async fn leave_uncommitted(sim: &Control, env: &Env, ledger: &Ledger<Row>) {
    let (process, _handle) = start(sim, job(ledger)).await.unwrap();
    env.sleep(Duration::from_millis(500)).await;
    ledger.set_moods(Moods { retry: 1.0, ..Moods::default() });
    env.sleep(Duration::from_millis(500)).await;
    process.kill();
    ledger.set_moods(Moods::default());
    assert_eq!(standing(env).await.unconfirmed.len(), 1);
}

#[test]
fn what_no_sink_has_committed_is_fallen_back_past() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let (_file, before) = damage(sim, &env, part).await;
            let (_process, handle) = start(sim, job(&ledger)).await.unwrap();
            env.sleep(Duration::from_millis(100)).await;
            let from = handle.control().view().started_from;
            assert!(from.contains(&format!("continues from checkpoint {} ", before.checkpoint)), "{from}");
            assert_eq!(handle.join().await.unwrap().how, "finished");
            assert_exact(&ledger);
        });
    }
}

#[test]
fn what_a_sink_has_committed_is_not() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            let (process, _handle) = start(sim, job(&ledger)).await.unwrap();
            env.sleep(Duration::from_millis(950)).await;
            process.kill();
            assert!(standing(&env).await.unconfirmed.is_empty());
            let committed = ledger.committed();
            let (file, before) = damage(sim, &env, part).await;
            let error = run(sim, job(&ledger)).await.unwrap_err();
            let older = format!("--from /checkpoints@{}", before.checkpoint);
            let texts =
                [&*file, "does not fall back by itself", "sink out has committed", "put the file back"];
            assert_says(&error, ErrorKind::Corrupt, &[&texts[..], &[&*older, "--from none"]].concat());
            assert_eq!(ledger.committed(), committed);
            assert_eq!(standing(&env).await.revoked, []);
        });
    }
}

#[test]
fn a_crash_anywhere_in_the_fall_back_changes_nothing() {
    let mut crashes = 0;
    for change in 1..=60 {
        simulate(async |sim, env| {
            let ledger = Ledger::default();
            leave_uncommitted(sim, &env, &ledger).await;
            let part = if change % 2 == 0 { Part::Run } else { Part::Manifest };
            damage(sim, &env, part).await;
            let (process, own) = sim.process("job");
            sim.disk().crash_at(change);
            match live(job(&ledger), &own, &process).await {
                Death::Killed => crashes += 1,
                Death::Ended(ended) => drop(ended.unwrap()),
            }
            assert_eq!(run(sim, job(&ledger)).await.unwrap().how, "finished", "change {change}");
            assert_exact(&ledger);
        });
    }
    assert_eq!(crashes, 60);
}

/// A sink that keeps no promise but to write everything.
#[derive(Clone, Default)]
struct Plain(Arc<Mutex<BTreeSet<Row>>>);

impl Sink for Plain {
    type In = Row;
    type Writer = Self;

    async fn writer(&self, _context: &SinkContext) -> Result<Self> {
        Ok(self.clone())
    }
}

impl PlainWriter for Plain {
    type In = Row;

    async fn write(&mut self, mut batch: Batch<Row>) -> Result<()> {
        while let Some(record) = batch.next() {
            self.0.lock().unwrap().insert(record.value);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn without_exactly_once_sinks_nothing_stands_in_the_way() {
    for part in [Part::Manifest, Part::Run] {
        simulate(async |sim, env| {
            let sink = Plain::default();
            let job = || {
                let job = with_settings(Job::new("subject"), &SETTINGS).unwrap();
                job.source("numbers", numbers())
                    .key_by(|number| number % KEYS)
                    .count("count")
                    .map(|(key, count)| Row(Kind::Count, key, count))
                    .sink("out", sink.clone());
                job
            };
            let (process, _handle) = start(sim, job()).await.unwrap();
            env.sleep(Duration::from_millis(950)).await;
            process.kill();
            let (_file, before) = damage(sim, &env, part).await;
            let (_process, handle) = start(sim, job()).await.unwrap();
            let control = handle.control().clone();
            assert_eq!(handle.join().await.unwrap().how, "finished");
            let from = control.view().started_from;
            assert!(from.contains(&format!("continues from checkpoint {} ", before.checkpoint)), "{from}");
            assert_eq!(*sink.0.lock().unwrap(), rows().into_iter().collect());
        });
    }
}
