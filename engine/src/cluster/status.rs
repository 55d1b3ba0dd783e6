//! The states of jobs and tasks. A transition exists only if it is written here: anything else does not compile.

use std::{marker::PhantomData, sync::Arc};

use serde::{Deserialize, Serialize};

/// The state of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// Nothing was started yet.
    #[default]
    Created,
    /// An attempt is being started or runs.
    Running,
    /// All input was read; the last checkpoint is being taken and committed.
    Finishing,
    /// Everything was processed and committed.
    Finished,
    /// An attempt has failed; its tasks are being ended.
    Failing,
    /// The restart strategy gave up.
    Failed,
    /// Cancelled on request; tasks are being ended.
    Cancelling,
    /// Cancelled, or stopped with a last checkpoint.
    Cancelled,
    /// Waiting for the next attempt.
    Restarting,
    /// This process lost the job to another one; the job itself goes on there.
    Suspended,
    /// A new JobManager is finding out what the tasks of the old one do.
    Reconciling,
}

/// The state of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    /// Planned.
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

impl TaskStatus {
    /// Whether a task may go from this state to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use TaskStatus::{
            Cancelled, Cancelling, Created, Deploying, Failed, Finished, Initializing, Running, Scheduled,
        };
        match (self, next) {
            (Created, Scheduled)
            | (Scheduled, Deploying)
            | (Deploying, Initializing)
            | (Initializing, Running)
            | (Running, Finished)
            | (Cancelling, Cancelled) => true,
            (Created | Scheduled | Deploying | Initializing | Running, Cancelling | Failed) => true,
            // It failed or finished by itself before the cancellation reached it.
            (Cancelling, Failed | Finished) => true,
            _ => false,
        }
    }
}

/// A state as a type.
pub trait State {
    /// The state as a value.
    const STATUS: JobStatus;
}

/// `impl Becomes<B> for A`: a job may go from A to B.
pub trait Becomes<Next: State>: State {}

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident => [$($next:ident),*];)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;
            impl State for $name {
                const STATUS: JobStatus = JobStatus::$name;
            }
            $(impl Becomes<$next> for $name {})*
        )*
        /// Every transition that can be written.
        pub const TRANSITIONS: &[(JobStatus, JobStatus)] =
            &[$($((JobStatus::$name, JobStatus::$next),)*)*];
    };
}

states! {
    /// See [`JobStatus::Created`].
    Created => [Running, Finished, Failing, Cancelling, Suspended, Reconciling];
    /// See [`JobStatus::Running`].
    Running => [Finishing, Failing, Cancelling, Suspended];
    /// See [`JobStatus::Finishing`].
    Finishing => [Finished, Failing, Cancelling, Suspended];
    /// See [`JobStatus::Finished`].
    Finished => [];
    /// See [`JobStatus::Failing`].
    Failing => [Failed, Restarting, Cancelling, Suspended];
    /// See [`JobStatus::Failed`].
    Failed => [];
    /// See [`JobStatus::Cancelling`].
    Cancelling => [Cancelled, Suspended];
    /// See [`JobStatus::Cancelled`].
    Cancelled => [];
    /// See [`JobStatus::Restarting`].
    Restarting => [Running, Cancelling, Suspended];
    /// See [`JobStatus::Suspended`].
    Suspended => [];
    /// See [`JobStatus::Reconciling`].
    Reconciling => [Running, Failing, Cancelling, Suspended];
}

/// A job known to be in state `S`. There is one for each job; a transition consumes it.
pub struct At<S> {
    show: Arc<dyn Fn(JobStatus) + Send + Sync>,
    state: PhantomData<S>,
}

impl At<Created> {
    /// A new job; `show` is told of every state.
    pub fn created(show: Arc<dyn Fn(JobStatus) + Send + Sync>) -> Self {
        show(JobStatus::Created);
        Self { show, state: PhantomData }
    }
}

impl<S: State> At<S> {
    /// The next state.
    #[must_use]
    pub fn become_state<Next: State>(self) -> At<Next>
    where
        S: Becomes<Next>,
    {
        (self.show)(Next::STATUS);
        At { show: self.show, state: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leaves_an_end_state() {
        use JobStatus::{Cancelled, Failed, Finished, Suspended};
        assert!(TRANSITIONS.iter().all(|(from, _)| ![Finished, Failed, Cancelled, Suspended].contains(from)));
        for end in [TaskStatus::Finished, TaskStatus::Failed, TaskStatus::Cancelled] {
            assert!(!end.may_become(TaskStatus::Running) && !end.may_become(TaskStatus::Cancelling));
        }
    }
}
