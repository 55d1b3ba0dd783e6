//! Runs user code so that a panic becomes an error naming the operator, the record, and the panic's text and place.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    panic::{self, AssertUnwindSafe},
    pin::pin,
    sync::Once,
};

use futures::FutureExt;
use types::{Error, Result};

thread_local! {
    /// How many guards this thread is in.
    static GUARDS: Cell<u32> = const { Cell::new(0) };
    /// Where the last panic within a guard came from.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// While it lives, panics on this thread are somebody's to report.
struct Guard;

impl Guard {
    fn enter() -> Self {
        GUARDS.set(GUARDS.get() + 1);
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
    }
}

/// From now on a panic in user code is told once, in the line of the error that it becomes; all others as before. For a
/// program that is the job's: the hook is the whole process's.
pub(crate) fn one_line_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if GUARDS.get() == 0 {
                return others(panic);
            }
            PLACE.set(panic.location().map(|place| format!(" (at {}:{})", place.file(), place.line())));
        }));
    });
}

/// Runs `call`; a panic becomes a `User` error. The operator is not used again: its attempt fails.
pub(crate) fn catch<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    let guard = Guard::enter();
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    drop(guard);
    result.unwrap_or_else(|panic| Err(error(&*panic)))
}

/// Waits for `work`; a panic in it becomes a `User` error. As cancel-safe as `work` is.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    let ended = poll_fn(|context| {
        let _guard = Guard::enter();
        work.as_mut().poll(context)
    });
    ended.await.unwrap_or_else(|panic| Err(error(&*panic)))
}

fn error(panic: &(dyn Any + Send)) -> Error {
    let place = PLACE.take().unwrap_or_default();
    Error::user(format!("panicked: {}{place}", text(panic)))
}

/// The text of a panic.
pub(crate) fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // One line, whatever an assertion printed.
    text.map_or_else(|| "no text".to_owned(), |text| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    #[test]
    fn a_panic_becomes_one_line() {
        let error = catch::<()>(|| panic!("left:\n  {}\nright", 1)).expect_err("it panics");
        assert_eq!(error.kind(), ErrorKind::User);
        // Another test may have set the hook that notes the place.
        assert!(error.to_string().starts_with("panicked: left: 1 right"), "{error}");
    }
}
