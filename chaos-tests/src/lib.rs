//! Real processes, killed: the example jobs are started, shot with SIGKILL, started again, and their output is held to
//! what exactly-once promises, by an oracle that shares no code with the engine.

// The harness stands outside of the jobs: it starts and kills processes, waits in real time, and prints.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

pub mod damage;
pub mod events;
mod expected;
mod history;
mod laboratory;
mod lines;
pub mod parts;
mod process;
pub mod rest;
mod scene;
mod seed;
pub mod stage;
pub mod words;
pub mod workload;

pub use expected::{Expected, expected};
pub use history::{HistoryReader, Newest};
pub use laboratory::{Examination, Laboratory, Restored};
pub use lines::Lines;
pub use parts::Watch;
pub use process::{Ended, Life, await_answer, died_of_sigkill};
pub use scene::Scene;
pub use seed::Seeded;
pub use stage::Stage;
