//! Runs user code so that a panic becomes an error naming the operator, the record and the panic's text.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures::FutureExt;
use types::{Error, Result};

/// Runs `call`; a panic becomes a `User` error. The operator is not used again: its attempt fails.
pub(crate) fn catch<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    match std::panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(panic) => Err(Error::user(format!("panicked: {}", text(&*panic)))),
    }
}

/// Waits for `work`; a panic in it becomes a `User` error. As cancel-safe as `work` is.
pub(crate) async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.unwrap_or_else(|panic| Err(Error::user(format!("panicked: {}", text(&*panic)))))
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
        assert_eq!(error.to_string(), "panicked: left: 1 right");
    }
}
