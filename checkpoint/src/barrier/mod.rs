//! The life of a barrier, pure: one file for each step, to be read in this order.
//!
//! ```text
//!              coordinator          source task          task with inputs       history
//! inject.rs         |-- Inject n -------->|                      |                 |
//!                   |<-- injected n ------| cut, barrier n in    |                 |
//!                   |                     | every channel ------>|                 |
//! align.rs          |                     |      n on one input: block it          |
//!                   |                     |      n on all inputs: cut, pass n on   |
//! ack.rs            |<-- acked n (files, prepared transactions) -|                 |
//! complete.rs       | all acked: write the manifest              |                 |
//!                   |-- create "checkpoint n completed" -------------------------->|  the commit point
//! commit.rs         |-- Commit n (needs the permit) ------------>| sinks commit    |
//!                   |<-- committed n ----------------------------|                 |
//!                   |-- create "sinks of n confirmed" ---------------------------->|
//! ```
//!
//! Only two places call these steps: [`crate::coordinator`] (ack, complete, commit) and the task loop of the engine
//! (inject, align). The invariant of all of them: what checkpoint n holds is exactly the effect of the records before
//! its barrier (with at-least-once: of these at least), and nothing of it is visible outside before n is in the job history.
//!
//! A checkpoint that fails takes nothing back: the runs that tasks sealed and the transactions that sinks prepared
//! for it stay in their lists and are part of the next one.

pub mod ack;
pub mod align;
pub mod commit;
pub mod complete;
pub mod inject;

use serde::{Deserialize, Serialize};
use types::CheckpointId;

/// What a barrier asks for besides the cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BarrierKind {
    /// Nothing: a checkpoint.
    Checkpoint,
    /// A checkpoint that is copied into a savepoint once its sinks have committed.
    Savepoint,
    /// Sources emit nothing after it.
    Stop {
        /// The last watermark goes ahead of it, so that all event-time timers fire.
        drain: bool,
    },
    /// All sources have ended: the checkpoint that commits the job's last results.
    Last,
}

/// The mark that cuts every channel into before and after a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Barrier {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// What else it asks for.
    pub kind: BarrierKind,
}

/// How a task with several inputs treats those that are ahead of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointMode {
    /// An input that delivered the barrier waits for the others: each record counts once.
    #[default]
    ExactlyOnce,
    /// Nothing waits: after a failure some records count again.
    AtLeastOnce,
}
