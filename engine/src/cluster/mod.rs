//! JobManager and TaskManager. They share no memory: every message between them is encoded and decoded, also inside one
//! process. Reading order: [`message`], [`job_manager`] (one attempt after the other), `launch`
//! (from the start record to tasks that run), [`attempt`] (one attempt),
//! [`task_manager`] (builds and runs tasks).

pub mod attempt;
pub(crate) mod build;
pub(crate) mod enumerator;
mod fall_back;
pub mod job_manager;
pub(crate) mod journal;
mod launch;
pub(crate) mod link;
mod lives;
pub mod local;
pub mod message;
mod pending;
mod places;
pub(crate) mod requests;
pub(crate) mod resolve;
pub(crate) mod retention;
pub mod status;
pub(crate) mod task_manager;
pub mod view;
