//! The door to the disk of local recovery: a call that takes too long goes on, but nobody waits for it, and nobody else asks
//! until it has come back. A disk that hangs so takes [`AT_ONCE`] threads from the process, and never more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use env::{Env, Monotonic};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long the disk may take for one call, and besides for each megabyte: checkpoints wait for no copy longer than that.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_PER_MB: Duration = Duration::from_millis(100);
/// How long a disk that took longer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// How many calls are under way at once; others wait for them.
const AT_ONCE: usize = 16;

/// A disk that may hang.
pub(super) struct Disk {
    env: Env,
    calls: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The calls for which nobody waits any more. They let go of it when they come back.
    late: Vec<Weak<Call>>,
    /// Somebody waited in vain for one of those under way to come back.
    is_full: bool,
    /// Until then no copy is begun.
    left_alone: Option<Monotonic>,
}

/// A call that is under way; dropped by the thread that does it.
struct Call {
    _permit: OwnedSemaphorePermit,
}

/// Why a call gave nothing.
pub(super) enum Silent {
    /// It has been left to itself after so long.
    Late(Duration),
    /// It was not done: another one has not come back yet, of which the caller was told.
    Hangs,
}

impl Disk {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), calls: Arc::new(Semaphore::new(AT_ONCE)), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether copies are not to be begun now: a call has not come back, or one took too long a short while ago.
    pub(super) fn is_left_alone(&self) -> bool {
        self.hangs() || self.state().left_alone.is_some_and(|until| self.env.now() < until)
    }

    fn hangs(&self) -> bool {
        let mut state = self.state();
        state.late.retain(|call| call.strong_count() > 0);
        state.is_full &= self.calls.available_permits() == 0;
        state.is_full || !state.late.is_empty()
    }

    /// What `work` on the disk gives, which is about so many bytes.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Silent> {
        if self.hangs() {
            return Err(Silent::Hangs);
        }
        let megabytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let patience = PATIENCE + PATIENCE_PER_MB * megabytes;
        let mut under_way = None;
        let done = self.env.timeout(patience, async {
            let permit = Arc::clone(&self.calls).acquire_owned().await.ok()?;
            // One of those that it waited for may have been late.
            if self.hangs() {
                return None;
            }
            let call = Arc::new(Call { _permit: permit });
            under_way = Some(Arc::downgrade(&call));
            let work = move || {
                let done = work();
                drop(call);
                done
            };
            self.env.blocking(what, work).await.ok()
        });
        match done.await {
            Some(Some(done)) => Ok(done),
            Some(None) => Err(Silent::Hangs),
            None => {
                let mut state = self.state();
                state.is_full |= under_way.is_none();
                state.late.extend(under_way);
                state.left_alone = Some(self.env.now() + LEFT_ALONE);
                Err(Silent::Late(patience))
            }
        }
    }
}
