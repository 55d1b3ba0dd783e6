//! Blocking work that goes on while its task does: the file source reads ahead of its parser with it, the file sink
//! writes behind its encoder.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use env::{BoxFuture, Env};
use futures::channel::oneshot;
use types::{Error, Result};

/// The result of work that was started at once. Cancel-safe: poll it by reference and nothing is lost.
pub(crate) struct Background<T> {
    result: BoxFuture<'static, Result<T>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts `work` away from the tasks. It goes on when this is dropped.
    pub(crate) fn start(
        env: &Env,
        name: &'static str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Self {
        let (sender, receiver) = oneshot::channel();
        let started = env.run_blocking(name, Box::new(move || drop(sender.send(work()))));
        let result = async move {
            started.await?;
            receiver.await.map_err(|_| Error::internal(format!("{name} ended without a result")))?
        };
        Self { result: Box::pin(result) }
    }
}

impl<T> Future for Background<T> {
    type Output = Result<T>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.result.as_mut().poll(cx)
    }
}
