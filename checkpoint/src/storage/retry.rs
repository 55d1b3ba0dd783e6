//! Trying a call to a store again: only while it fails with `Retryable`, with growing and jittered pauses, until a
//! deadline. The stores themselves never retry; whoever calls them knows how long it may take.

use std::time::Duration;

use bytes::Bytes;
use env::{Created, Env, Store};
use rand::RngExt;
use types::{Error, ErrorKind, Result};

/// How long, and how often, a call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// No try begins after this span, and a try that is under way then is given up.
    pub deadline: Duration,
    /// The pause after the first failure; it doubles from there.
    pub first_pause: Duration,
    /// The pause never grows above this.
    pub longest_pause: Duration,
}

impl Retry {
    /// For calls to a checkpoint store: outlasts the restart of a storage server, but not a checkpoint's time-out.
    pub const STORE: Self = Self {
        deadline: Duration::from_secs(60),
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_secs(5),
    };

    /// Calls `call` until it succeeds, fails for good, or the deadline has passed. `what` completes "cannot ...".
    ///
    /// # Errors
    /// The last error of `call`; a try without an answer at the deadline is `Retryable`.
    pub async fn run<T, F>(&self, env: &Env, what: &str, mut call: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let end = env.now() + self.deadline;
        let mut pause = self.first_pause;
        let mut jitter = None;
        loop {
            let left = end.since(env.now());
            let result = env.timeout(left, call()).await.unwrap_or_else(|| {
                Err(Error::retryable(format!("cannot {what}: no answer within {:?}", self.deadline)))
            });
            match result {
                Err(error) if error.kind() == ErrorKind::Retryable && end.since(env.now()) > pause => {
                    let jitter = jitter.get_or_insert_with(|| env.rng(what)).random_range(0.5..1.0);
                    env.sleep(pause.mul_f64(jitter)).await;
                    pause = (pause * 2).min(self.longest_pause);
                }
                result => return result,
            }
        }
    }

    /// Makes sure that the object at `path`, a name that only this caller writes, holds `bytes`: an answer that was
    /// lost is found again by reading back.
    ///
    /// # Errors
    /// `Conflict` if something else is there; otherwise as [`run`](Self::run).
    pub async fn create_own(&self, env: &Env, store: &dyn Store, path: &str, bytes: &Bytes) -> Result<()> {
        self.run(env, "write a file", || async {
            if store.create(path, vec![bytes.clone()]).await? == Created::New {
                return Ok(());
            }
            match store.get(path).await? {
                Some(found) if found == *bytes => Ok(()),
                Some(_) => {
                    Err(Error::conflict(format!("{path} in {} exists and holds something else", store.url())))
                }
                None => Err(Error::retryable(format!("{path} in {} vanished", store.url()))),
            }
        })
        .await
    }
}
