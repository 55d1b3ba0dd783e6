//! A task: one subtask of one chain, from its channels in to its channels out. Reading order:
//!
//! - [`run`]: *the* loop. Commands first, then finished background work, then records; slices of snapshot work between.
//! - [`input`]: the channels in, blocked by alignment. [`chain`]: the operators, depth first, never more than about a
//!   batch ahead of the channels out.
//! - [`source`] and [`sink`]: the two ends that touch the outside.
//! - [`cut`]: the cut at a barrier, and the slices of work after it. [`snapshot`]: which pieces the acknowledgement still
//!   waits for. [`aligning`]: how long the barriers took. [`upload`]: run files, in the background. [`restore`]: the way back;
//!   [`waiting`]: what is left of it when the task begins.
//! - [`message`]: what a task is told and what it reports. [`guard`]: user code that panics.
//!   [`load`]: how much of its time a task is busy. [`working`]: stores on disk. [`store_faults`]: where those can fail.

mod aligning;
pub(crate) mod chain;
mod cut;
pub(crate) mod guard;
pub(crate) mod input;
pub(crate) mod load;
pub(crate) mod message;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod sink;
mod snapshot;
pub(crate) mod source;
mod store_faults;
pub(crate) mod upload;
pub(crate) mod waiting;
pub(crate) mod working;
