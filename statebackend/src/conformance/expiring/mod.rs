//! State with a time to live in the same jobs: `clocks` is how late it is, `model` says what there should be and
//! `subject` makes it, as their namesakes one folder up do for state that lives for ever; `machine` says what happens
//! how often.
//!
//! The model keeps what has expired, with its deadline, and looks at the clock of its key group whenever it is asked:
//! nothing is ever dropped there, so it knows nothing of hands, merges and stores that do.

mod clocks;
mod machine;
mod model;
mod subject;

pub(super) use self::{
    clocks::Clocks,
    machine::change,
    model::{Change, Model},
    subject::Handles,
};

/// How long state lives, in milliseconds.
const TTL: u64 = 10;
