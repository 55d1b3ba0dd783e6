//! The simulated world: one thread, virtual time, one seed; the same seed gives the same run.
//!
//! ```
//! use std::time::Duration;
//!
//! # use tidegate_env as env;
//! let sim = env::sim::Simulation::new(7);
//! sim.run(async |env| {
//!     let (process, own) = sim.process("writer");
//!     let _task = own.spawn_task("sleeper", { let own = own.clone(); async move { own.sleep(Duration::from_secs(9)).await } });
//!     env.sleep(Duration::from_secs(1)).await;
//!     process.crash();
//!     let (_again, _env) = sim.process("writer"); // on the same disk, with what was synced
//! });
//! ```
//!
//! The `env` given to the body is the observer's: it sees the disk of the machine on which processes run unless they
//! name another, and outlives crashes. A process that has died changes nothing any more: its tasks end where they are,
//! its calls fail or never return.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "this stands in for the real world")]

mod disk;
mod files;
mod net;
mod shared;
mod store;
mod trace;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::RngExt;
use tokio::runtime::{Builder, Runtime};
use types::ErrorKind;

pub use self::{
    files::Disk,
    store::{StoreCall, StoreFaults},
    world::Process,
};
use self::{
    shared::{Shared, lock},
    world::{ProcessState, SimWorld},
};
use crate::{Env, FaultPoint, Rng};

/// The machine on which processes run that name none.
const MACHINE: &str = "machine";

/// What happens when an armed fault point is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// The process that reached it dies, see [`Process::kill`].
    Kill,
    /// Its machine's power fails, see [`Process::crash`].
    Crash,
    /// The call fails with an error of this kind.
    Fail(ErrorKind),
}

/// How unkind a simulation is. [`Simulation::new`] draws it from the seed; it can be changed at any time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How often a task is polled later than it could be, or a channel lets others run: from 0 to 1.
    pub yields: f64,
    /// The longest time that a blocking call or a connect takes.
    pub blocking_delay: Duration,
    /// What goes wrong with stores; nothing, unless a test says so.
    pub store: StoreFaults,
}

impl Options {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            yields: [0.0, 0.05, 0.25, 0.5][rng.random_range(0..4)],
            blocking_delay: [Duration::ZERO, Duration::from_millis(2), Duration::from_millis(50)]
                [rng.random_range(0..3)],
            store: StoreFaults::default(),
        }
    }
}

/// What a test may do to a running simulation, from anywhere in it. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    /// A new process on the machine that all share; the same name again is a new life of it, on the same disk.
    #[must_use]
    pub fn process(&self, name: &str) -> (Process, Env) {
        self.process_on(MACHINE, name)
    }

    /// A new process on a machine of this name, with a disk of its own.
    #[must_use]
    pub fn process_on(&self, machine: &str, name: &str) -> (Process, Env) {
        let (state, env) = self.start(machine, name);
        lock(&state.machine.processes).push(Arc::clone(&state));
        (Process { state }, env)
    }

    fn start(&self, machine: &str, name: &str) -> (Arc<ProcessState>, Env) {
        let number = self.shared.next_process.fetch_add(1, Ordering::Relaxed);
        let state = ProcessState::new(&self.shared, &self.shared.machine(machine), name, number);
        let world = SimWorld { shared: Arc::clone(&self.shared), process: Arc::clone(&state) };
        (state, Env::new(world))
    }

    /// The disk of the machine that all share.
    #[must_use]
    pub fn disk(&self) -> Disk {
        self.disk_of(MACHINE)
    }

    /// The disk of a machine.
    #[must_use]
    pub fn disk_of(&self, machine: &str) -> Disk {
        self.shared.machine(machine).disk.clone()
    }

    /// The power of the machine that all share fails, see [`Process::crash`].
    pub fn crash(&self) {
        self.shared.machine(MACHINE).crash(&self.shared);
    }

    /// How unkind the simulation is now.
    #[must_use]
    pub fn options(&self) -> Options {
        self.shared.options()
    }

    /// Changes how unkind the simulation is.
    pub fn set_options(&self, options: Options) {
        *lock(&self.shared.options) = options;
    }

    /// Changes what goes wrong with stores.
    pub fn set_store_faults(&self, store: StoreFaults) {
        lock(&self.shared.options).store = store;
    }

    /// From now on `rule` is asked about each call to a store, but for the writing of large objects: with the name of the
    /// process and the call, such as `delete attempt-0/manifest-1`.
    pub fn rule_stores(&self, rule: impl Fn(&str, &str) -> StoreCall + Send + Sync + 'static) {
        *lock(&self.shared.store_rule) = Some(Arc::new(rule));
    }

    /// How many blocking calls have not come back, in processes that live.
    #[must_use]
    pub fn blocking_calls(&self) -> u64 {
        self.shared.blocking_calls.load(Ordering::Relaxed)
    }

    /// Makes the wall clock jump; the monotonic clock does not notice.
    pub fn jump_wall(&self, milliseconds: i64) {
        self.shared.wall_shift.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Makes `action` happen at the `nth` hit of `point` from now on, once; the first is 1.
    pub fn arm(&self, point: FaultPoint, nth: u64, action: FaultAction) {
        let mut faults = lock(&self.shared.faults);
        let hits = faults.hits.get(&point).copied().unwrap_or(0);
        faults.armed.push((point, hits + nth, action));
    }

    /// What is armed and has not happened does not happen any more.
    pub fn disarm(&self) {
        lock(&self.shared.faults).armed.clear();
    }

    /// How often each fault point was hit.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<FaultPoint, u64> {
        lock(&self.shared.faults).hits.clone()
    }

    /// Sets an environment variable for all processes.
    pub fn set_var(&self, name: &str, value: &str) {
        lock(&self.shared.vars).insert(name.to_owned(), value.to_owned());
    }

    /// The lines that processes have printed, with the process's name, in order.
    #[must_use]
    pub fn printed(&self) -> Vec<(String, String)> {
        lock(&self.shared.printed).clone()
    }

    /// Whether the disk that standard output goes to is full from now on.
    pub fn fill_output(&self, full: bool) {
        self.shared.output_full.store(full, Ordering::Relaxed);
    }

    /// Adds an event to the trace.
    pub fn trace(&self, event: impl fmt::Display) {
        self.shared.note("test", &event.to_string());
    }

    /// The hash of all that happened so far: equal for equal seeds.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        lock(&self.shared.trace).hash()
    }

    /// The last ten thousand events: microseconds, process, event.
    #[must_use]
    pub fn last_events(&self) -> Vec<String> {
        lock(&self.shared.trace).last()
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }
}

/// One simulated world and the thread that runs it.
pub struct Simulation {
    control: Control,
    runtime: Runtime,
    observer: Env,
    limit: Duration,
}

impl Drop for Simulation {
    /// Machines and their processes know each other: without this the disks of thousands of seeds would stay.
    fn drop(&mut self) {
        for machine in lock(&self.control.shared.machines).values() {
            lock(&machine.processes).clear();
        }
    }
}

impl Deref for Simulation {
    type Target = Control;
    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Simulation {
    /// A world in which everything follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing that could be missing");
        let control = Control { shared: Arc::new(Shared::new(seed, runtime.handle().clone())) };
        let (_, observer) = control.start(MACHINE, "observer");
        Self { control, runtime, observer, limit: Duration::from_secs(24 * 3600) }
    }

    /// The same with another limit on the virtual time that [`run`](Self::run) may take; a day, unless set.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What can be moved into tasks to steer the simulation from there.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The observer's view, which outlives crashes.
    #[must_use]
    pub fn env(&self) -> Env {
        self.observer.clone()
    }

    /// Runs `body` to its end; tasks left over stay where they are until the next call.
    ///
    /// # Panics
    /// If `body` panics, or if it is not done within the limit of virtual time: then it waits for something that will
    /// never happen. The seed is printed.
    pub fn run<T>(&self, body: impl AsyncFnOnce(Env) -> T) -> T {
        let _report = ReportSeed(&self.control);
        let limit = self.limit;
        self.runtime.block_on(async {
            tokio::time::timeout(limit, body(self.observer.clone()))
                .await
                .unwrap_or_else(|_| panic!("the simulation is not done after {limit:?} of virtual time"))
        })
    }
}

/// Prints what is needed to replay a failure.
struct ReportSeed<'a>(&'a Control);

impl Drop for ReportSeed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, options) = (self.0.seed(), self.0.options());
            eprintln!("simulation failed: replay with seed {seed} ({options:?}); last events:");
            for line in self.0.last_events().iter().rev().take(30).rev() {
                eprintln!("  {line}");
            }
        }
    }
}
