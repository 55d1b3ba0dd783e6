//! One checkpoint from its trigger to its history record, and the requests that wait for it.

use std::collections::BTreeSet;

use env::Monotonic;
use types::Error;

use super::event::{Decision, RequestId};
use crate::{
    barrier::{Barrier, ack::Acks, complete::Capture},
    manifest::TaskId,
};

/// Requests that the same checkpoint serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Requests {
    pub(super) checkpoints: Vec<RequestId>,
    pub(super) savepoints: Vec<SavepointRequest>,
}

/// A request for a savepoint of its own, or that of a stop, which has no request: the stop's answer tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SavepointRequest {
    pub(super) request: Option<RequestId>,
    pub(super) dir: String,
}

impl Requests {
    pub(super) fn is_empty(&self) -> bool {
        self.checkpoints.is_empty() && self.savepoints.is_empty()
    }

    pub(super) fn append(&mut self, other: Self) {
        self.checkpoints.extend(other.checkpoints);
        self.savepoints.extend(other.savepoints);
    }

    /// Answers all with an error like this one.
    pub(super) fn refuse(self, error: &Error, out: &mut Vec<Decision>) {
        let savepoints = self.savepoints.into_iter().filter_map(|savepoint| savepoint.request);
        for request in self.checkpoints.into_iter().chain(savepoints) {
            out.push(refusal(request, error));
        }
    }
}

/// The answer to a request that failed for the reason that `error` gives.
pub(super) fn refusal(request: RequestId, error: &Error) -> Decision {
    Decision::Answer { request, result: Err(Error::new(error.kind(), error.to_string())) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// Acknowledgements come in.
    Collecting,
    /// All are in, the manifest is on its way.
    Writing,
    /// The manifest is durable, the record waits or is on its way.
    Recording,
}

/// A checkpoint that was triggered and is not in the history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pending {
    pub(super) barrier: Barrier,
    pub(super) deadline: Monotonic,
    pub(super) requests: Requests,
    pub(super) stage: Stage,
    pub(super) capture: Option<Capture>,
    /// The source tasks that have not sent the barrier.
    pub(super) not_injected: BTreeSet<TaskId>,
    pub(super) acks: Acks,
}

impl Pending {
    /// Whether everything is there that the manifest needs.
    pub(super) fn is_whole(&self) -> bool {
        self.capture.is_some() && self.acks.is_complete()
    }
}
