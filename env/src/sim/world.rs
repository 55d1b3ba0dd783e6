//! [`World`] as one simulated process sees it, and the processes themselves.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rand::RngExt;
use tokio::{sync::Notify, task::AbortHandle};
use types::{Error, Result, Timestamp};

use super::{
    Disk, FaultAction,
    files::SimFiles,
    shared::Shared,
    store::{FaultyStore, Reach},
};
use crate::{
    BoxFuture, Connection, FaultPoint, Files, Listener, Monotonic, Store, TaskHandle, World,
    store::{Blocking, DirStore, Location, MemoryStores, locate},
    world::{joined, panicked},
};

/// A machine: one disk and the processes on it.
pub(super) struct Machine {
    pub(super) disk: Disk,
    pub(super) processes: Mutex<Vec<Arc<ProcessState>>>,
}

pub(super) struct ProcessState {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) machine: Arc<Machine>,
    shared: Arc<Shared>,
    dead: AtomicBool,
    died: Notify,
    tasks: Mutex<BTreeMap<u64, Option<AbortHandle>>>,
    memory: MemoryStores,
}

impl ProcessState {
    pub(super) fn new(shared: &Arc<Shared>, machine: &Arc<Machine>, name: &str, number: u32) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            number,
            machine: Arc::clone(machine),
            shared: Arc::clone(shared),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            tasks: Mutex::default(),
            memory: MemoryStores::default(),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.dead.load(Ordering::SeqCst)
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.shared.wall()
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<u64, Option<AbortHandle>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process as `kill -9` does: its tasks end where they are, what it has written stays in the page cache.
    pub(super) fn kill(&self) {
        if self.dead.swap(true, Ordering::SeqCst) {
            return;
        }
        self.shared.note(&self.name, "dies");
        self.machine.disk.free_locks(self.number);
        // Outside the lock: an aborted task may be dropped at once, and then leaves the list by itself.
        let tasks: Vec<AbortHandle> = self.tasks().values().flatten().cloned().collect();
        for task in tasks {
            task.abort();
        }
        self.died.notify_waiters();
    }

    /// The power of its machine fails.
    pub(super) fn crash_machine(&self) {
        self.machine.crash(&self.shared);
    }

    async fn died(&self) {
        let notified = self.died.notified();
        if self.is_alive() {
            notified.await;
        }
    }
}

impl Machine {
    /// The power fails: all processes die, and what was not synced may be lost.
    pub(super) fn crash(&self, shared: &Shared) {
        let processes = std::mem::take(&mut *self.processes.lock().unwrap_or_else(PoisonError::into_inner));
        for process in processes {
            process.kill();
        }
        self.disk.crash(&mut shared.rng());
    }
}

/// A simulated process, seen from outside.
#[derive(Clone)]
pub struct Process {
    pub(super) state: Arc<ProcessState>,
}

impl Process {
    /// Ends the process as `kill -9` does: all its tasks end where they are, its locks are freed, its files stay.
    pub fn kill(&self) {
        self.state.kill();
    }

    /// Ends the process as a power failure of its machine does: the other processes on the machine die too, and bytes
    /// and names that were not synced may be lost, as the seed says. The disk stays.
    pub fn crash(&self) {
        self.state.crash_machine();
    }

    /// Whether it has neither been killed nor crashed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state.is_alive()
    }

    /// Waits until it has died.
    pub async fn died(&self) {
        self.state.died().await;
    }
}

/// One process's view of the simulated world.
#[derive(Clone)]
pub(super) struct SimWorld {
    pub(super) shared: Arc<Shared>,
    pub(super) process: Arc<ProcessState>,
}

impl SimWorld {
    /// Ready at once in a living process, never in a dead one.
    pub(super) async fn until_alive(&self) {
        if !self.process.is_alive() {
            pending::<()>().await;
        }
    }

    /// Waits for `span` of virtual time.
    pub(super) async fn pause(&self, span: Duration) {
        self.shared.pause(span).await;
        self.until_alive().await;
    }

    /// Writes an event to the trace.
    pub(super) fn note(&self, event: &str) {
        self.shared.note(&self.process.name, event);
    }

    fn yields(&self) -> Option<BoxFuture<'static, ()>> {
        let times = self.shared.yields()?;
        Some(Box::pin(async move {
            for _ in 0..times {
                tokio::task::yield_now().await;
            }
        }))
    }

    fn blocking(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<()>> {
        let delay = self.shared.blocking_delay();
        let (shared, name, process) = (Arc::clone(&self.shared), name.to_owned(), Arc::clone(&self.process));
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let call = BlockingCall::new(&self.shared);
        let task = self.spawn(&name.clone(), {
            Box::pin(async move {
                let _call = call;
                shared.pause(delay).await;
                if process.is_alive() {
                    let done = catch_unwind(AssertUnwindSafe(work));
                    drop(sender.send(done.map_err(|payload| panicked(&name, &*payload))));
                }
            })
        });
        let process = Arc::clone(&self.process);
        Box::pin(async move {
            let ended = receiver.await;
            if !process.is_alive() {
                pending::<()>().await;
            }
            match ended {
                Ok(done) => done,
                Err(_) => task.join().await,
            }
        })
    }
}

/// Counts a blocking call until it has come back, or its process is dead.
struct BlockingCall(Arc<Shared>);

impl BlockingCall {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.blocking_calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for BlockingCall {
    fn drop(&mut self) {
        self.0.blocking_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes the task out of its process's list when it ends.
struct Registered {
    process: Arc<ProcessState>,
    task: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.process.tasks().remove(&self.task);
    }
}

/// A task that is sometimes, seeded, polled later than it could be.
struct Jittered {
    shared: Arc<Shared>,
    task: BoxFuture<'static, ()>,
    _registered: Registered,
}

impl Future for Jittered {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.shared.yields().is_some() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.task.as_mut().poll(cx)
    }
}

impl World for SimWorld {
    fn now(&self) -> Monotonic {
        self.shared.now()
    }

    /// Virtual time does not pass while something is computed.
    fn thread_cpu(&self) -> Duration {
        Duration::ZERO
    }

    fn wall(&self) -> Timestamp {
        self.shared.wall()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        let (sleep, world) = (self.shared.sleep(span), self.clone());
        Box::pin(async move {
            sleep.await;
            world.until_alive().await;
        })
    }

    fn seed(&self, name: &str) -> [u8; 32] {
        self.shared.derive(&format!("{}/{}/{name}", self.process.name, self.process.number))
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) -> TaskHandle {
        let number = self.shared.number();
        self.note(&format!("spawns {name}"));
        self.process.tasks().insert(number, None);
        let registered = Registered { process: Arc::clone(&self.process), task: number };
        let jittered = Jittered { shared: Arc::clone(&self.shared), task, _registered: registered };
        let task = self.shared.spawn(jittered);
        let abort = task.abort_handle();
        if let Some(entry) = self.process.tasks().get_mut(&number) {
            *entry = Some(abort.clone());
        }
        if !self.process.is_alive() {
            abort.abort();
        }
        TaskHandle { abort: Box::new(move || abort.abort()), joined: Box::pin(joined(name.to_owned(), task)) }
    }

    fn run_blocking(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<()>> {
        self.blocking(name, work)
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        self.yields().unwrap_or_else(|| Box::pin(tokio::task::yield_now()))
    }

    fn maybe_yield(&self) -> Option<BoxFuture<'static, ()>> {
        self.yields()
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(SimFiles { process: Arc::clone(&self.process) })
    }

    /// Besides the real schemes: `sim:NAME`, a store far away that outlives all processes and machines.
    fn open_store(&self, url: &str) -> Result<Arc<dyn Store>> {
        let faulty = |inner, reach| Arc::new(FaultyStore { inner, world: self.clone(), reach });
        if let Some(name) = url.strip_prefix("sim:") {
            return Ok(faulty(self.shared.far_stores.open(name), Reach::Remote));
        }
        match locate(url)? {
            Location::Memory(name) => Ok(faulty(self.process.memory.open(&name), Reach::Local)),
            Location::Dir(path) => {
                let world = self.clone();
                let blocking: Blocking = Arc::new(move |name, work| world.blocking(name, work));
                let nonce = self.shared.rng().random();
                let store = DirStore::open(url, &path, self.files(), blocking, nonce, self.wall())?;
                Ok(faulty(Arc::new(store), Reach::Local))
            }
            Location::S3 { .. } => Err(Error::invalid_job(format!(
                "{url} cannot be simulated: sim:NAME is a store that is far away"
            ))),
        }
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Box<dyn Connection>>> {
        Box::pin(async move {
            self.pause(self.shared.blocking_delay()).await;
            self.note(&format!("connects to {address}"));
            self.shared.network.connect(address)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(async move {
            self.until_alive().await;
            self.shared.network.listen(address)
        })
    }

    fn var(&self, name: &str) -> Option<String> {
        self.shared.var(name)
    }

    fn vars(&self, prefix: &str) -> Vec<String> {
        self.shared.vars(prefix)
    }

    fn print(&self, line: &str) -> Result<()> {
        if self.shared.output_full.load(Ordering::Relaxed) {
            return Err(Error::unavailable("cannot write to standard output: no space left on device"));
        }
        self.shared.printed(&self.process, line);
        Ok(())
    }

    fn warn(&self, line: &str) {
        self.shared.printed(&self.process, line);
    }

    fn process_id(&self) -> u32 {
        self.process.number
    }

    fn fault(&self, point: FaultPoint) -> Result<()> {
        if !self.process.is_alive() {
            return Err(Error::cancelled("this process is dead"));
        }
        self.note(&format!("passes {}", point.name()));
        match self.shared.hit(point) {
            None => Ok(()),
            Some(FaultAction::Fail(kind)) => {
                Err(Error::new(kind, format!("simulated: the fault point {} fails", point.name())))
            }
            Some(FaultAction::Kill) => {
                self.process.kill();
                Err(Error::cancelled(format!("killed at {}", point.name())))
            }
            Some(FaultAction::Crash) => {
                self.process.crash_machine();
                Err(Error::cancelled(format!("crashed at {}", point.name())))
            }
        }
    }
}
