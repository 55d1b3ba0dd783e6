//! What users ask of the job, and the ways back to them. Requests outlive attempts: a stop whose checkpoint is in the
//! history is answered by the attempt that does what remains of it, and a cancellation is heard while no attempt runs.

use std::{
    collections::{BTreeMap, VecDeque},
    future,
};

use checkpoint::coordinator::{Answer, RequestId};
use env::{Message, Receiver};
use tokio::sync::oneshot;
use types::{Error, Result};

use super::attempt::Ask;

/// So many requests wait for an attempt that is being started; further ones are told to come back.
const HELD: usize = 64;

/// A request with the way back.
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Result<Answer>>,
}

/// All requests of a job, numbered over all its attempts.
pub(crate) struct Requests {
    incoming: Receiver<Message<Request>>,
    open: BTreeMap<RequestId, oneshot::Sender<Result<Answer>>>,
    newest: u64,
    /// Those for which no attempt was there yet, oldest first.
    held: VecDeque<(RequestId, Ask)>,
}

impl Requests {
    pub(crate) fn new(incoming: Receiver<Message<Request>>) -> Self {
        Self { incoming, open: BTreeMap::new(), newest: 0, held: VecDeque::new() }
    }

    /// The next request; it is open until it is answered. Waits for ever when nobody is left to ask. Cancel-safe.
    pub(crate) async fn next(&mut self) -> (RequestId, Ask) {
        match self.held.pop_front() {
            Some(held) => held,
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> (RequestId, Ask) {
        let Some(Message(Request { ask, reply })) = self.incoming.recv().await else {
            return future::pending().await;
        };
        self.newest += 1;
        let request = RequestId(self.newest);
        self.open.insert(request, reply);
        (request, ask)
    }

    /// Waits for a cancellation while an attempt is being started; all else is held for that attempt. Cancel-safe.
    pub(crate) async fn cancelled_start(&mut self) -> RequestId {
        loop {
            match self.receive().await {
                (request, Ask::Cancel) => return request,
                held if self.held.len() < HELD => self.held.push_back(held),
                (request, _) => self.come_back(request, "the job is being started"),
            }
        }
    }

    /// Waits for a cancellation while the next attempt is waited for; all others are told to come back. Cancel-safe.
    pub(crate) async fn cancelled_wait(&mut self) -> RequestId {
        loop {
            match self.next().await {
                (request, Ask::Cancel) => return request,
                (request, _) => self.come_back(request, "the job is restarting"),
            }
        }
    }

    fn come_back(&mut self, request: RequestId, why_not: &str) {
        self.answer(request, Err(Error::retryable(format!("{why_not}: ask again when it runs"))));
    }

    /// Answers a request, once.
    pub(crate) fn answer(&mut self, request: RequestId, result: Result<Answer>) {
        if let Some(reply) = self.open.remove(&request) {
            // Whoever asked may be gone.
            let _gone = reply.send(result);
        }
    }

    /// Refuses all that are still open: the job is over.
    pub(crate) fn refuse(&mut self, error: &Error) {
        while let Some((_, reply)) = self.open.pop_first() {
            let _gone = reply.send(Err(Error::new(error.kind(), error.to_string())));
        }
    }
}
