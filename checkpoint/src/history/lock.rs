//! The process that runs a job: its random identity, and the lock file of a local checkpoint directory. The lock is a
//! hint for people (two starts by mistake); safety rests on the history alone.

use std::fmt;

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

/// Held by a process from before its first attempt until its end.
pub struct JobLock {
    /// The process.
    pub instance: Instance,
    /// The process, for people: "pid 12 on host-a".
    pub process: String,
    _lock: Option<Box<dyn FileLock>>,
}

impl fmt::Debug for JobLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobLock({})", self.process)
    }
}

impl JobLock {
    /// Draws the process's identity and, on a local directory, takes the lock. With `take_over` a lock that another
    /// process holds is no obstacle: that process is fenced by the start record.
    ///
    /// # Errors
    /// `Conflict` naming the process that holds the lock; `Unavailable` if the directory cannot be written.
    pub async fn acquire(env: &Env, store: &dyn Store, take_over: bool) -> Result<Self> {
        let process = describe(env);
        let instance = Instance(random_u128(env, "process"));
        let Some(dir) = store.local_dir() else {
            return Ok(Self { instance, process, _lock: None });
        };
        let (files, path) = (env.files(), dir.join(paths::LOCK));
        let holder = process.clone();
        let place = path.display().to_string();
        let locked = env.blocking("job lock", move || {
            files.create_dir_all(&dir)?;
            files.lock(&path, &holder)
        });
        match locked.await?.map_err(|error| {
            Error::io(format!("cannot lock {place}; make the directory writable or choose another"), error)
        })? {
            Ok(lock) => Ok(Self { instance, process, _lock: Some(lock) }),
            Err(_) if take_over => Ok(Self { instance, process, _lock: None }),
            Err(holder) => Err(Error::conflict(format!(
                "checkpoint directory {} is in use by {}: wait for it, stop it, or start with --take-over",
                store.url(),
                holder.trim()
            ))),
        }
    }
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
