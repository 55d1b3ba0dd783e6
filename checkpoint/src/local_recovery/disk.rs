//! The door to the disk of local recovery, which may hang: a call that takes too long goes on, but nobody waits for it, and
//! nobody else asks until it has come back. So a disk that hangs takes [`AT_ONCE`] threads from the process at the most.

use std::{
    fmt,
    pin::pin,
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
/// How many calls are under way at once; others wait for them. Half of the threads that there are at least for the blocking
/// work of checkpoints, which goes on with the others.
const AT_ONCE: usize = 2;

/// A disk that may hang.
pub(super) struct Disk {
    env: Env,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those that are under way, and some that were.
    calls: Vec<Weak<Call>>,
    /// Until then no copy is begun.
    left_alone: Option<Monotonic>,
}

/// A call that is under way; dropped by the thread that does it, whoever still waits for it.
struct Call {
    deadline: Monotonic,
    _permit: OwnedSemaphorePermit,
}

/// Why a call gave nothing.
#[derive(Clone, Copy, Debug)]
pub(super) enum Silent {
    /// It has been left to itself after so long.
    Late(Duration),
    /// It was not begun: another one is late.
    Hangs,
    /// It was not begun: others took all its time, and none of them is late.
    Busy(Duration),
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(patience) => write!(f, "the disk has not answered for {patience:?}"),
            Self::Hangs => f.write_str("the disk has not come back from an earlier call"),
            Self::Busy(patience) => write!(f, "the disk was busy with other calls for {patience:?}"),
        }
    }
}

impl Disk {
    pub(super) fn new(env: &Env) -> Self {
        Self { env: env.clone(), permits: Arc::new(Semaphore::new(AT_ONCE)), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether copies are not to be begun now: a call is late, or one was a short while ago.
    pub(super) fn is_left_alone(&self) -> bool {
        self.hangs() || self.state().left_alone.is_some_and(|until| self.env.now() < until)
    }

    fn hangs(&self) -> bool {
        let now = self.env.now();
        let mut state = self.state();
        state.calls.retain(|call| call.strong_count() > 0);
        state.calls.iter().filter_map(Weak::upgrade).any(|call| call.deadline <= now)
    }

    /// When the first of those under way will be late.
    fn first_deadline(&self) -> Option<Monotonic> {
        self.state().calls.iter().filter_map(Weak::upgrade).map(|call| call.deadline).min()
    }

    /// What `work` on the disk gives, which is about so many bytes.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        bytes: u64,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Silent> {
        let megabytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let patience = PATIENCE + PATIENCE_PER_MB * megabytes;
        let permit = self.turn(patience).await?;
        let call = Arc::new(Call { deadline: self.env.now() + patience, _permit: permit });
        self.state().calls.push(Arc::downgrade(&call));
        let work = move || {
            let done = work();
            drop(call);
            done
        };
        match self.env.timeout(patience, self.env.blocking(what, work)).await {
            Some(Ok(done)) => Ok(done),
            // It has panicked.
            Some(Err(_)) => Err(Silent::Hangs),
            None => {
                self.state().left_alone = Some(self.env.now() + LEFT_ALONE);
                Err(Silent::Late(patience))
            }
        }
    }

    /// Waits for its turn, but not until one of those before it is late.
    async fn turn(&self, patience: Duration) -> Result<OwnedSemaphorePermit, Silent> {
        let until = self.env.now() + patience;
        let mut acquired = pin!(Arc::clone(&self.permits).acquire_owned());
        loop {
            if self.hangs() {
                return Err(Silent::Hangs);
            }
            let now = self.env.now();
            if now >= until {
                return Err(Silent::Busy(patience));
            }
            let look = self.first_deadline().map_or(until, |deadline| deadline.min(until));
            match self.env.timeout(look.since(now), acquired.as_mut()).await {
                Some(Ok(permit)) if !self.hangs() => return Ok(permit),
                Some(_) => return Err(Silent::Hangs),
                None => {}
            }
        }
    }
}
