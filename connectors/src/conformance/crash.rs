//! Simulated crashes: the power fails at every single change of the disk, or one sync fails, the life goes on as if nothing
//! had been, and the power fails once it has ended.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use env::{Env, sim::Simulation};
use types::{ErrorKind, Result};

use super::{life::Script, subject::SinkSubject};

const DIR: &str = "/conformance";
/// More changes of the disk than any script makes.
const MOST_CHANGES: u64 = 10_000;
/// More lives than one fault can take.
const MOST_LIVES: usize = 10;
/// So often a process begins an attempt anew.
const MOST_RESTARTS: usize = 3;

/// What went wrong in how many runs; each is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crashes {
    /// Runs in which the power failed.
    pub crashes: u64,
    /// Runs in which a sync failed.
    pub failed_syncs: u64,
}

/// Runs the scripted life under `seed`: once undisturbed, once for each change of the disk with the
/// power failing just before it, once for each sync with that one failing. What a failed sync should have made durable
/// stays visible and is lost with the power, which fails when the life has ended: by an error that no restart mends, or
/// because all is done. Files that live elsewhere than on the simulated disk do not notice.
///
/// # Panics
/// If a reader ever sees what it must not, or not at the end what it must.
#[must_use]
pub fn everywhere<S: SinkSubject>(seed: u64) -> Crashes {
    let count = |arm: fn(&Simulation, u64)| {
        let runs = (1..MOST_CHANGES).take_while(|&nth| {
            let sim = Simulation::new(seed);
            arm(&sim, nth);
            run::<S>(&sim)
        });
        u64::try_from(runs.count()).expect("few")
    };
    let crashes = count(|sim, nth| sim.disk().crash_at(nth));
    let failed_syncs = count(|sim, nth| sim.disk().fail_sync(nth));
    assert!(crashes > 0 && failed_syncs > 0, "the sink never touched the simulated disk");
    Crashes { crashes, failed_syncs }
}

/// Lives, in as many processes as it takes; returns whether anything was in the way.
fn run<S: SinkSubject>(sim: &Simulation) -> bool {
    sim.run(async |observer| {
        let script = Arc::new(Script::<S>::below(Path::new(DIR)));
        for life in 1..=MOST_LIVES {
            let (process, env) = sim.process("sink");
            let done = Arc::new(AtomicBool::new(false));
            let task = env.spawn_task("life", one_life(Arc::clone(&script), env.clone(), Arc::clone(&done)));
            // A task that dies with its process ends with an error; a failed check must not pass for that.
            if let Err(error) = task.join().await {
                assert!(!process.is_alive(), "{error}");
            }
            process.kill();
            sim.control().crash();
            script.check(&observer).await;
            if done.load(Ordering::SeqCst) {
                script.check_end(&observer).await;
                return life > 1 || script.tried_again();
            }
        }
        panic!("not done after {MOST_LIVES} lives");
    })
}

/// As an engine does, goes on in the same process after what may pass, and ends after what may not.
async fn one_life<S: SinkSubject>(script: Arc<Script<S>>, env: Env, done: Arc<AtomicBool>) {
    for _attempt in 0..=MOST_RESTARTS {
        let alive: Result<()> = script.live(&env, &|_| Ok(())).await;
        let Err(error) = alive else { return done.store(true, Ordering::SeqCst) };
        env.warn(&format!("the attempt ends: {error}"));
        script.try_again();
        if !matches!(error.kind(), ErrorKind::Retryable | ErrorKind::Unavailable) {
            return;
        }
    }
}
