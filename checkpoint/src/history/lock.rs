//! The process that runs a job: its random identity, and the lock file of a local checkpoint directory. The lock is a
//! hint for people (two starts by mistake); safety rests on the history alone.

use std::{
    fmt, io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use env::{Env, FileLock, Store};
use rand::Rng;
use serde::{Deserialize, Serialize};
use types::{Error, Result};

use crate::storage::paths;

/// 128 random bits that name a process: by them an automatic restart recognises its own earlier attempt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance(pub u128);

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instance({:032x})", self.0)
    }
}

/// Between two looks whether the process that is taken over has freed the lock.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Held by a process from before its first attempt until its end.
pub struct JobLock {
    /// The process.
    pub instance: Instance,
    /// The process, for people: "pid 12 on host-a".
    pub process: String,
    /// Empty where there is nothing to lock, and as long as the process that is taken over has it.
    lock: Arc<Mutex<Option<Box<dyn FileLock>>>>,
}

/// Who holds the lock of a checkpoint directory: runs the job there, as far as this machine can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This process, for people: "pid 12 on host-a".
    Process(String),
    /// No process.
    Nobody,
    /// Nobody can tell: there is nothing to lock, or it cannot be looked at. A hint to people is left out then, and whoever has
    /// to be sure fences.
    Unknown,
}

impl Holder {
    /// The process that is known to hold it.
    #[must_use]
    pub fn process(self) -> Option<String> {
        match self {
            Self::Process(process) => Some(process),
            Self::Nobody | Self::Unknown => None,
        }
    }
}

impl fmt::Debug for JobLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobLock({})", self.process)
    }
}

impl JobLock {
    /// Draws the process's identity and, on a local directory, takes the lock. With `take_over` a lock that another
    /// process holds is no obstacle: that process is fenced by the start record, and the lock is taken when it ends, so
    /// that the next one to start by mistake is refused.
    ///
    /// # Errors
    /// `Conflict` naming the process that holds the lock; `Unavailable` if the directory cannot be written.
    pub async fn acquire(env: &Env, store: &dyn Store, take_over: bool) -> Result<Self> {
        let process = describe(env);
        let instance = Instance(random_u128(env, "process"));
        let own = Self { instance, process, lock: Arc::default() };
        let Some(dir) = store.local_dir() else { return Ok(own) };
        let place = dir.join(paths::LOCK).display().to_string();
        match try_lock(env, &dir, &own.process).await?.map_err(|error| {
            let remedy = "free some space, make the directory writable or choose another";
            Error::io(format!("cannot lock {place}; {remedy}"), error)
        })? {
            Ok(lock) => own.hold(lock),
            Err(_) if take_over => {
                let (world, process, lock) = (env.clone(), own.process.clone(), Arc::downgrade(&own.lock));
                env.spawn_task("job lock", async move {
                    loop {
                        world.sleep(LOOK_AGAIN).await;
                        if lock.strong_count() == 0 {
                            return;
                        }
                        // Without it the job is safe all the same.
                        if let Ok(Ok(Ok(freed))) = try_lock(&world, &dir, &process).await {
                            if let Some(lock) = lock.upgrade() {
                                *lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(freed);
                            }
                            return;
                        }
                    }
                });
            }
            Err(holder) => {
                return Err(Error::conflict(format!(
                    "checkpoint directory {} is in use by {}: wait for it, stop it, or start with --take-over",
                    store.url(),
                    holder.trim()
                )));
            }
        }
        Ok(own)
    }

    /// Who holds the lock of the directory.
    ///
    /// # Errors
    /// `Internal` if the look at it panicked.
    pub async fn holder(env: &Env, store: &dyn Store) -> Result<Holder> {
        let Some(dir) = store.local_dir() else { return Ok(Holder::Unknown) };
        let files = env.files();
        let held = env.blocking("job lock", move || files.lock_holder(&dir.join(paths::LOCK))).await?;
        Ok(match held {
            Ok(Some(holder)) => Holder::Process(holder.trim().to_owned()),
            Ok(None) => Holder::Nobody,
            Err(_) => Holder::Unknown,
        })
    }

    fn hold(&self, lock: Box<dyn FileLock>) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    }
}

type Locked = io::Result<Result<Box<dyn FileLock>, String>>;

/// The lock, or who holds it.
async fn try_lock(env: &Env, dir: &Path, holder: &str) -> Result<Locked> {
    let (files, dir, holder) = (env.files(), dir.to_owned(), holder.to_owned());
    let lock = move || {
        files.create_dir_all(&dir)?;
        files.lock(&dir.join(paths::LOCK), &holder)
    };
    env.blocking("job lock", lock).await
}

/// 128 random bits for `purpose`, different in each process and at each time.
pub(super) fn random_u128(env: &Env, purpose: &str) -> u128 {
    let mut random = env.rng(&format!("{purpose} of pid {} at {}", env.process_id(), env.wall()));
    u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())
}

fn describe(env: &Env) -> String {
    let host = env.var("HOSTNAME").filter(|host| !host.is_empty()).unwrap_or_else(|| "this host".into());
    format!("pid {} on {host}", env.process_id())
}
