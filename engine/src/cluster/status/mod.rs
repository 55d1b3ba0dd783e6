//! The states of jobs and tasks. A transition exists only if [`job`] or [`task`] has it in its table: anything else does
//! not compile.

pub mod job;
pub mod task;

use std::{marker::PhantomData, sync::Arc};

pub use self::{job::JobStatus, task::TaskStatus};

/// A state as a type.
pub trait State {
    /// Of jobs or of tasks.
    type Status;
    /// The state as a value.
    const STATUS: Self::Status;
}

/// The state in which a life begins.
pub trait First: State {}

/// `impl Becomes<B> for A`: what is in state A may go to B.
pub trait Becomes<Next: State<Status = Self::Status>>: State {}

/// A job or a task known to be in state `S`. There is one for each; a transition consumes it.
///
/// ```compile_fail
/// use tidegate_engine::cluster::status::{At, job::{Finished, Running}};
///
/// fn again(finished: At<Finished>) -> At<Running> {
///     finished.become_state()
/// }
/// ```
pub struct At<S: State> {
    show: Arc<dyn Fn(S::Status) + Send + Sync>,
    state: PhantomData<S>,
}

impl<S: First> At<S> {
    /// A new life; `show` is told of every state of it.
    pub fn first(show: Arc<dyn Fn(S::Status) + Send + Sync>) -> Self {
        show(S::STATUS);
        Self { show, state: PhantomData }
    }
}

impl<S: State> At<S> {
    /// The next state.
    #[must_use]
    pub fn become_state<Next: State<Status = S::Status>>(self) -> At<Next>
    where
        S: Becomes<Next>,
    {
        (self.show)(Next::STATUS);
        At { show: self.show, state: PhantomData }
    }
}

/// States of one kind, the first one first, and where each may go.
macro_rules! states {
    ($status:ident: $first:ident $(,$(#[$doc:meta])* $name:ident => [$($next:ident),*])* $(,)?) => {
        $(
            $(#[$doc])*
            #[derive(Debug)]
            pub struct $name;
            impl State for $name {
                type Status = $status;
                const STATUS: $status = $status::$name;
            }
            $(impl Becomes<$next> for $name {})*
        )*
        impl First for $first {}
        /// Every transition that can be written.
        pub const TRANSITIONS: &[($status, $status)] =
            &[$($(($status::$name, $status::$next),)*)*];
    };
}
use states;

#[cfg(test)]
mod tests;
