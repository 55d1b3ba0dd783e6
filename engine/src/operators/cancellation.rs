//! Told to end: how a task that is busy with a user's functions learns that its attempt is over. A task ends by itself only
//! where it waits; a batch of slow functions may be minutes away from that.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use types::{Error, Result};

/// Whether the tasks of an attempt have been told to end. Asked before every record; a function that works for long may
/// ask as well, and return any error: nobody hears of it.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Whether they have.
    #[must_use]
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        // No other memory hangs on it, and a moment later is soon enough.
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// `Cancelled` if they have: the task goes no further.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(told_to_end()) } else { Ok(()) }
    }
}

#[cold]
fn told_to_end() -> Error {
    Error::cancelled("the task was told to end")
}
