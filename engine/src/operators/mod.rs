//! What vertices do, one dynamic call per batch and operator, typed inside.
//!
//! [`operator`] is the contract with the task, [`cancellation`] how it is told to end. `apply` runs stateless functions,
//! `update` the built-in keyed ones, `process` the user's with state and timers (`list_state` and `side` hold what it
//! owns), `watermark` makes event time. `exchange` spreads records over the next operator's subtasks. `source` and
//! `sink` stand between the public traits and the erased ones. A union is no operator: it is several inputs.

pub(crate) mod apply;
pub mod cancellation;
pub(crate) mod exchange;
pub(crate) mod list_state;
pub mod operator;
pub(crate) mod process;
pub(crate) mod side;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod update;
pub(crate) mod watermark;

#[cfg(test)]
mod tests;
