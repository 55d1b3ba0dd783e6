//! JobManager and TaskManager. They share no memory: every message between them is encoded and decoded, also inside one
//! process. Reading order: [`message`], [`job_manager`] (one attempt after the other), `launch`
//! (from the start record to tasks that run), [`attempt`] (one attempt),
//! [`task_manager`] (builds and runs tasks, and has `committers` settle what sinks hold; `user_tasks`: what may stay in a
//! function of the user's).

pub mod attempt;
pub(crate) mod build;
mod committers;
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
mod user_tasks;
pub mod view;
