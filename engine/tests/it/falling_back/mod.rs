//! A damaged newest checkpoint: the job falls back to the one before it where every sink proves that nothing of the
//! damaged one was committed, and refuses with the choices where one has. Whatever dies on the way, the output is right.
//!
//! Here is the job and what is damaged of it; `proof` asks the sinks, `rivals` is about who comes in between, `choices` about what
//! is examined and told.

mod choices;
mod proof;
mod rivals;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use checkpoint::history;
use checkpoint::history::CompletedCheckpoint;
use checkpoint::history::Standing;
use checkpoint::manifest;
use env::Env;
use env::sim::Control;
use tidegate_engine::api::sink::PlainWriter;
use tidegate_engine::api::sink::Sink;
use tidegate_engine::api::sink::SinkContext;
use tidegate_engine::prelude::*;
use tidegate_engine::record::Batch;

use crate::counting::{KEYS, assert_gapless, counting};
use crate::ledger::{Ledger, Moods, counted};
use crate::numbers::Numbers;
use crate::world::{Kind, Row, start};

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

/// Changes one byte of a file; again, and it is whole.
fn flip(sim: &Control, file: &str) {
    let path = Path::new("/checkpoints").join(file);
    let flip = |bytes: &mut Vec<u8>| {
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
    };
    sim.disk().damage(&path, flip).unwrap();
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
    flip(sim, &file);
    (file, before.clone())
}

/// Changes one byte of one of these checkpoints: of a file that the ones before it do not have.
async fn damage_of(
    sim: &Control,
    env: &Env,
    completed: &[CompletedCheckpoint],
    of: &CompletedCheckpoint,
    part: Part,
) {
    let file = match part {
        Part::Manifest => of.manifest.path.clone(),
        Part::Run => {
            let mut own = files(env, of).await;
            for before in completed.iter().filter(|it| it.checkpoint < of.checkpoint) {
                let shared = files(env, before).await;
                own.retain(|file| !shared.contains(file));
            }
            own.into_iter().next().unwrap()
        }
    };
    flip(sim, &file);
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

/// A sink that keeps no promise but to write everything.
#[derive(Clone, Default)]
pub(crate) struct Plain(Arc<Mutex<BTreeSet<Row>>>);

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
