//! Writes the golden snapshots of this format version, with what they hold as text. By hand, from the root:
//!
//! ```text
//! cargo run -p tidegate-engine --example golden_snapshots -- engine/tests/golden
//! ```
//!
//! The job of `engine/tests/it/golden/job.rs` runs in a simulated process: clock, ids and scheduling follow from one seed, so
//! the files are the same on every machine. Once a format version is released, its files are never written again: they are
//! what old snapshots look like. A new version gets a folder of its own.

#![allow(clippy::unwrap_used, reason = "run by hand, and fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "writes to the real disk, at a place it is given"
)]
#![allow(dead_code, reason = "the tests use the rest")]

#[path = "../tests/it/golden/dump.rs"]
mod dump;
#[path = "../tests/it/golden/job.rs"]
mod job;

use std::{
    env::args,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use env::{
    Env, FileKind,
    sim::{Options, Simulation},
};
use tidegate_engine::prelude::*;

use self::job::{OF_SAVEPOINT, Output, STAGES, job};

fn main() {
    let folder = PathBuf::from(args().nth(1).expect("the folder to write to"));
    let sim = Simulation::new(1);
    sim.set_options(Options { yields: 0.0, blocking_delay: Duration::ZERO, ..sim.options() });
    let control = sim.control();
    sim.run(async |env| {
        let (process, own) = control.process("job");
        let (gate, output) = (Arc::new(AtomicU64::new(0)), Output::default());
        let settings =
            [("checkpoints.url", "/checkpoints"), ("parallelism", "2"), ("checkpoints.retained", "3")];
        let handle = job(&settings, &gate, &output).start(&own).await.unwrap();
        for (stage, numbers) in STAGES.into_iter().enumerate() {
            gate.store(numbers, Ordering::Relaxed);
            env.sleep(Duration::from_secs(1)).await;
            if stage > OF_SAVEPOINT {
                output.refuse();
            }
            let ask =
                if stage == OF_SAVEPOINT { Ask::Savepoint("/savepoint".to_owned()) } else { Ask::Checkpoint };
            handle.control().ask(ask).await.unwrap();
            env.sleep(Duration::from_secs(1)).await;
        }
        process.kill();
        for name in ["checkpoints", "savepoint"] {
            let _ = fs::remove_dir_all(folder.join(name));
            copy(&env, &Path::new("/").join(name), &folder.join(name));
            let text = dump::dump(&env, env.open_store(&format!("/{name}")).unwrap()).await;
            fs::write(folder.join(format!("{name}.txt")), text).unwrap();
        }
    });
    println!("written to {}", folder.display());
}

/// From the simulated disk to the real one; the lock file of a process that is gone is left out.
fn copy(env: &Env, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in env.files().read_dir(from).unwrap() {
        let name = path.file_name().unwrap();
        match env.files().metadata(&path).unwrap().unwrap().kind {
            FileKind::Dir => copy(env, &path, &to.join(name)),
            _ if name == "job.lock" => {}
            _ => {
                let file = env.files().open(&path).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_full(0, &mut bytes).unwrap();
                fs::write(to.join(name), bytes).unwrap();
            }
        }
    }
}
