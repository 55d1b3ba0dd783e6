//! The real world: tokio for tasks and timers, the machine's clocks, files and sockets. Made by [`Env::real`](crate::Env::real).

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the one way to the real world"
)]

mod fault;
mod files;
mod net;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rand::{TryRng, rngs::SysRng};
use tokio::runtime::Handle;
use types::{Error, Result, Timestamp};

use self::files::{RealFiles, timestamp};
#[cfg(not(feature = "s3"))]
use crate::store::without_s3;
#[cfg(feature = "s3")]
use crate::store::{S3Store, Spawn};
use crate::{
    BoxFuture, Connection, FaultPoint, Files, Listener, Monotonic, Store, TaskHandle, World,
    store::{Blocking, DirStore, Location, MemoryStores, locate},
    world::joined,
};

/// The machine's files without the rest of the real world: for tests of what works on files itself.
#[cfg(any(test, feature = "test-util"))]
#[must_use]
pub fn files() -> Arc<dyn Files> {
    Arc::new(RealFiles)
}

pub(crate) struct RealWorld {
    start: Instant,
    runtime: Handle,
    users: Handle,
    memory: MemoryStores,
}

impl RealWorld {
    /// Tasks run on the tokio runtime in whose context this is called, those with functions of the user's on `users`.
    pub(crate) fn new(users: Handle) -> Self {
        let memory = MemoryStores::default();
        Self { start: Instant::now(), runtime: Handle::current(), users, memory }
    }
}

fn spawn_on(runtime: &Handle, name: &str, task: BoxFuture<'static, ()>) -> TaskHandle {
    let task = runtime.spawn(task);
    let abort = task.abort_handle();
    TaskHandle { abort: Box::new(move || abort.abort()), joined: Box::pin(joined(name.to_owned(), task)) }
}

fn run_blocking(
    runtime: &Handle,
    name: &str,
    work: Box<dyn FnOnce() + Send>,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(joined(name.to_owned(), runtime.spawn_blocking(work)))
}

fn printed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write to standard output", error))
        }
        _ => Ok(()),
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system has randomness once it has started");
    bytes
}

impl World for RealWorld {
    fn now(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }

    fn thread_cpu(&self) -> Duration {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(used).unwrap_or_default()
    }

    fn wall(&self) -> Timestamp {
        timestamp(SystemTime::now())
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'static, ()> {
        // Whoever sleeps is woken by the runtime that it runs on.
        let _context = Handle::try_current().is_err().then(|| self.runtime.enter());
        Box::pin(tokio::time::sleep(span))
    }

    fn seed(&self, _name: &str) -> [u8; 32] {
        random()
    }

    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>) -> TaskHandle {
        spawn_on(&self.runtime, name, task)
    }

    fn spawn_user(&self, name: &str, task: BoxFuture<'static, ()>) -> TaskHandle {
        spawn_on(&self.users, name, task)
    }

    fn run_blocking(&self, name: &str, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, Result<()>> {
        // Those of the user's tasks wait for each other only.
        let runtime = Handle::try_current();
        run_blocking(runtime.as_ref().unwrap_or(&self.runtime), name, work)
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn maybe_yield(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }

    fn files(&self) -> Arc<dyn Files> {
        Arc::new(RealFiles)
    }

    fn open_store(&self, url: &str) -> Result<Arc<dyn Store>> {
        match locate(url)? {
            Location::Memory(name) => Ok(self.memory.open(&name)),
            Location::Dir(path) => {
                let runtime = self.runtime.clone();
                let blocking: Blocking = Arc::new(move |name, work| run_blocking(&runtime, name, work));
                let nonce = u64::from_le_bytes(random());
                Ok(Arc::new(DirStore::open(url, &path, self.files(), blocking, nonce, self.wall())?))
            }
            #[cfg(feature = "s3")]
            Location::S3 { bucket, prefix } => {
                let runtime = self.runtime.clone();
                let spawn: Spawn = Arc::new(move |name, task| spawn_on(&runtime, name, task));
                let vars = self.vars("AWS_").into_iter();
                let vars: Vec<_> = vars.filter_map(|name| Some((name.clone(), self.var(&name)?))).collect();
                Ok(Arc::new(S3Store::open(url, &bucket, &prefix, &vars, spawn)?))
            }
            #[cfg(not(feature = "s3"))]
            Location::S3 { .. } => Err(without_s3(url)),
        }
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Box<dyn Connection>>> {
        Box::pin(net::connect(address))
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listener>> {
        Box::pin(net::listen(address))
    }

    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn vars(&self, prefix: &str) -> Vec<String> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        names
    }

    fn print(&self, line: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        printed(writeln!(out, "{line}").and_then(|()| out.flush()))
    }

    fn warn(&self, line: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }

    #[inline]
    fn fault(&self, point: FaultPoint) -> Result<()> {
        fault::hit(point)
    }
}
