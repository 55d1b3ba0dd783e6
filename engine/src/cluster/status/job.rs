//! The states of a job, and how the one that runs goes from one to the next.

use checkpoint::coordinator::{Course, End};
use serde::{Deserialize, Serialize};
use types::ErrorKind;

use super::{At, Becomes, First, State, states};

/// The state of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Nothing runs yet: the first attempt is being started.
    #[default]
    Created,
    /// The tasks of an attempt are on their way, or run.
    Running,
    /// All input was read and the last checkpoint is being taken, or the checkpoint of a stop is in the history: sources
    /// never start again, and the rest is being committed.
    Finishing,
    /// Everything was processed and committed.
    Finished,
    /// An attempt has failed; its tasks are being ended.
    Failing,
    /// The restart strategy gave up, or the job could not be started.
    Failed,
    /// Cancelled on request, or stopped; tasks are being ended.
    Cancelling,
    /// Cancelled, or stopped with a last checkpoint.
    Cancelled,
    /// The next attempt is waited for, or being started.
    Restarting,
    /// This process lost the job to another one; the job itself goes on there.
    Suspended,
    /// A new JobManager is finding out what the tasks of the old one do.
    Reconciling,
}

states! {
    JobStatus: Created,
    /// See [`JobStatus::Created`].
    Created => [Running, Finished, Failing, Failed, Cancelling, Suspended, Reconciling],
    /// See [`JobStatus::Running`].
    Running => [Finishing, Failing, Cancelling, Suspended],
    /// See [`JobStatus::Finishing`].
    Finishing => [Finished, Failing, Cancelling, Suspended],
    /// See [`JobStatus::Finished`].
    Finished => [],
    /// See [`JobStatus::Failing`]. What has failed here may have done so because another process owns the job.
    Failing => [Failed, Restarting, Suspended],
    /// See [`JobStatus::Failed`].
    Failed => [],
    /// See [`JobStatus::Cancelling`]. A job may have finished before the cancellation reached it.
    Cancelling => [Cancelled, Finished, Suspended],
    /// See [`JobStatus::Cancelled`].
    Cancelled => [],
    /// See [`JobStatus::Restarting`].
    Restarting => [Running, Finished, Failing, Failed, Cancelling, Suspended],
    /// See [`JobStatus::Suspended`].
    Suspended => [],
    /// See [`JobStatus::Reconciling`].
    Reconciling => [Running, Failing, Cancelling, Suspended],
}

/// A job of which no attempt runs.
pub(crate) enum Waiting {
    New(At<Created>),
    Restarting(At<Restarting>),
}

impl Waiting {
    pub(crate) fn run(self) -> Live {
        Live::Running(match self {
            Self::New(at) => at.become_state(),
            Self::Restarting(at) => at.become_state(),
        })
    }

    pub(crate) fn cancel(self) -> At<Cancelling> {
        match self {
            Self::New(at) => at.become_state(),
            Self::Restarting(at) => at.become_state(),
        }
    }

    /// It was found to have finished already.
    pub(crate) fn finished(self) {
        let _end: At<Finished> = match self {
            Self::New(at) => at.become_state(),
            Self::Restarting(at) => at.become_state(),
        };
    }

    /// A start failed and may be tried again.
    pub(crate) fn fail(self) -> At<Failing> {
        match self {
            Self::New(at) => at.become_state(),
            Self::Restarting(at) => at.become_state(),
        }
    }

    /// No start is tried again after an error of this kind.
    pub(crate) fn give_up(self, kind: ErrorKind) {
        match (self, kind) {
            (Self::New(at), ErrorKind::Fenced) => drop(at.become_state::<Suspended>()),
            (Self::Restarting(at), ErrorKind::Fenced) => drop(at.become_state::<Suspended>()),
            (Self::New(at), _) => drop(at.become_state::<Failed>()),
            (Self::Restarting(at), _) => drop(at.become_state::<Failed>()),
        }
    }
}

/// A job while an attempt of it runs.
pub(crate) enum Live {
    Running(At<Running>),
    Finishing(At<Finishing>),
    Cancelling(At<Cancelling>),
}

impl Live {
    /// Goes where the coordinator has gone, which never goes back.
    pub(crate) fn follow(self, course: Course) -> Self {
        match (self, course) {
            (Self::Running(at), Course::Finishing) => Self::Finishing(at.become_state()),
            (live, Course::Cancelling) => Self::Cancelling(live.cancel()),
            (live, Course::Running | Course::Finishing) => live,
        }
    }

    pub(crate) fn cancel(self) -> At<Cancelling> {
        match self {
            Self::Running(at) => at.become_state(),
            Self::Finishing(at) => at.become_state(),
            Self::Cancelling(at) => at,
        }
    }

    /// This end is in the history, and all tasks have ended.
    pub(crate) fn end(self, end: End) -> JobStatus {
        match (self, end) {
            (Self::Running(at), End::Finished) => {
                return Self::Finishing(at.become_state()).end(end);
            }
            (Self::Finishing(at), End::Finished) => drop(at.become_state::<Finished>()),
            (Self::Cancelling(at), End::Finished) => drop(at.become_state::<Finished>()),
            (live, End::Stopped | End::Cancelled) => drop(live.cancel().become_state::<Cancelled>()),
        }
        if end == End::Finished { JobStatus::Finished } else { JobStatus::Cancelled }
    }

    /// Another process owns the job.
    pub(crate) fn suspend(self) {
        let _end: At<Suspended> = match self {
            Self::Running(at) => at.become_state(),
            Self::Finishing(at) => at.become_state(),
            Self::Cancelling(at) => at.become_state(),
        };
    }

    /// The attempt has failed. A job that is being cancelled has thereby ended, and is given back.
    pub(crate) fn fail(self) -> Result<At<Failing>, At<Cancelling>> {
        match self {
            Self::Running(at) => Ok(at.become_state()),
            Self::Finishing(at) => Ok(at.become_state()),
            Self::Cancelling(at) => Err(at),
        }
    }
}
