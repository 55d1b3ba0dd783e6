//! Conformance kits: what every source and every two-phase sink must pass, in this crate or outside.
//!
//! * [`source`]: positions (stop anywhere, go on elsewhere, read the same) and cancellation (drop the read at every
//!   await, lose nothing).
//! * [`sink`]: the contract of [`Committer`](engine::api::sink::Committer), call by call.
//! * [`crash`]: a scripted life of a sink in the simulated world, its power cut at every single change of the disk, and
//!   every sync failing once.
//! * [`kill`]: the same life in real processes, killed by `SIGKILL` at every step, and at every publish.
//!
//! Checks are assertions: they panic and say what was expected. The simulated ones print their seed.

pub mod crash;
pub mod kill;
mod life;
mod log;
pub mod sink;
pub mod source;
mod subject;

pub use subject::SinkSubject;
