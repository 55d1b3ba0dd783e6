//! The power fails just before every single change of the disk that some work makes.

use std::sync::{Arc, Mutex};

use env::{BoxFuture, Env, sim::Simulation};
use types::Result;

/// More changes than any work here makes.
const MOST_CHANGES: u64 = 2_000;

/// What there is before the work, the work, and what is looked at when the power is back: `check` is told where it failed.
pub(crate) struct Work {
    pub(crate) before: fn(Env) -> BoxFuture<'static, ()>,
    pub(crate) work: fn(Env) -> BoxFuture<'static, Result<()>>,
    pub(crate) check: fn(Env, String) -> BoxFuture<'static, ()>,
}

impl Work {
    /// Does it once for each of its changes, with the power failing before that one, and once undisturbed; returns how often
    /// the power failed.
    pub(crate) fn at_every_change(&self, seed: u64) -> u64 {
        for nth in 1..MOST_CHANGES {
            let sim = Simulation::new(seed);
            let failed = sim.run(async |observer| {
                let control = sim.control();
                (self.before)(observer.clone()).await;
                control.crash();
                let (process, env) = control.process("command");
                control.disk().crash_at(nth);
                let work = (self.work)(env.clone());
                let done = Arc::new(Mutex::new(None));
                let result = Arc::clone(&done);
                let task =
                    env.spawn_task("command", async move { *result.lock().unwrap() = Some(work.await) });
                drop(task.join().await);
                let failed = !process.is_alive();
                control.disk().crash_at(u64::MAX);
                let done = done.lock().unwrap().take();
                assert!(failed || matches!(done, Some(Ok(()))), "seed {seed}, change {nth}: {done:?}");
                process.kill();
                control.crash();
                (self.check)(observer, format!("seed {seed}, change {nth}")).await;
                failed
            });
            if !failed {
                return nth - 1;
            }
        }
        panic!("not done after {MOST_CHANGES} changes");
    }
}
