//! The states of a task, and what each thing that happens to it makes of them.

use super::{At, Becomes, First, State, states};
use serde::{Deserialize, Serialize};

/// The state of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Planned: what it restores is being found.
    #[default]
    Created,
    /// A slot was found.
    Scheduled,
    /// On its way to its TaskManager.
    Deploying,
    /// Restoring its state.
    Initializing,
    /// Reading.
    Running,
    /// Ended after the job's last checkpoint.
    Finished,
    /// Ended by an error.
    Failed,
    /// Being ended.
    Cancelling,
    /// Ended before its time.
    Cancelled,
}

states! {
    TaskStatus: Created,
    /// See [`TaskStatus::Created`].
    Created => [Scheduled, Cancelling],
    /// See [`TaskStatus::Scheduled`].
    Scheduled => [Deploying, Cancelling],
    /// See [`TaskStatus::Deploying`].
    Deploying => [Initializing, Cancelling],
    /// See [`TaskStatus::Initializing`].
    Initializing => [Running, Failed, Cancelling],
    /// See [`TaskStatus::Running`].
    Running => [Finished, Failed, Cancelling],
    /// See [`TaskStatus::Finished`].
    Finished => [],
    /// See [`TaskStatus::Failed`].
    Failed => [],
    /// See [`TaskStatus::Cancelling`].
    Cancelling => [Cancelled],
    /// See [`TaskStatus::Cancelled`].
    Cancelled => [],
}

/// A task wherever it is in its life.
pub(crate) enum Life {
    Created(At<Created>),
    Scheduled(At<Scheduled>),
    Deploying(At<Deploying>),
    Initializing(At<Initializing>),
    Running(At<Running>),
    Cancelling(At<Cancelling>),
    /// Finished, failed or cancelled.
    Over(TaskStatus),
}

/// What happens to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has a slot.
    Schedule,
    /// It is sent to its TaskManager.
    Deploy,
    /// Its TaskManager builds it.
    Initialize,
    /// It has its state and reads.
    Run,
    /// It has ended with the job.
    Finish,
    /// It has ended by an error.
    Fail,
    /// It is told to end.
    Cancel,
    /// Its TaskManager says that nothing is left of it.
    Cancelled,
}

impl Life {
    /// The state as a value.
    pub(crate) fn status(&self) -> TaskStatus {
        match self {
            Self::Created(_) => TaskStatus::Created,
            Self::Scheduled(_) => TaskStatus::Scheduled,
            Self::Deploying(_) => TaskStatus::Deploying,
            Self::Initializing(_) => TaskStatus::Initializing,
            Self::Running(_) => TaskStatus::Running,
            Self::Cancelling(_) => TaskStatus::Cancelling,
            Self::Over(status) => *status,
        }
    }

    /// The state after `change`; as an error the same state again, if that cannot happen to a task in it.
    pub(crate) fn after(self, change: Change) -> Result<Self, Self> {
        Ok(match (self, change) {
            (Self::Created(at), Change::Schedule) => Self::Scheduled(at.become_state()),
            (Self::Scheduled(at), Change::Deploy) => Self::Deploying(at.become_state()),
            (Self::Deploying(at), Change::Initialize) => Self::Initializing(at.become_state()),
            (Self::Initializing(at), Change::Run) => Self::Running(at.become_state()),
            (Self::Running(at), Change::Finish) => over(at.become_state::<Finished>()),
            (Self::Initializing(at), Change::Fail) => over(at.become_state::<Failed>()),
            (Self::Running(at), Change::Fail) => over(at.become_state::<Failed>()),
            (Self::Created(at), Change::Cancel) => Self::Cancelling(at.become_state()),
            (Self::Scheduled(at), Change::Cancel) => Self::Cancelling(at.become_state()),
            (Self::Deploying(at), Change::Cancel) => Self::Cancelling(at.become_state()),
            (Self::Initializing(at), Change::Cancel) => Self::Cancelling(at.become_state()),
            (Self::Running(at), Change::Cancel) => Self::Cancelling(at.become_state()),
            (Self::Cancelling(at), Change::Cancelled) => over(at.become_state::<Cancelled>()),
            // All tasks of an attempt are told to end: those that have ended are as they were.
            (Self::Over(status), Change::Cancel | Change::Cancelled) => Self::Over(status),
            (life, _) => return Err(life),
        })
    }
}

fn over<S: State<Status = TaskStatus>>(_at: At<S>) -> Life {
    Life::Over(S::STATUS)
}
