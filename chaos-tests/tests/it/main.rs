//! The kills: real processes of the word count, shot at random, shot by themselves at each named point, and doubled;
//! a job held back by its sink; and the example that reads a socket.
//!
//! `make kills` runs them all, `make kills ONLY=name` one.

// The harness stands outside of the jobs: it waits in real time and prints; a test fails by panicking.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    clippy::unwrap_used
)]

use std::path::{Path, PathBuf};

mod backpressure;
mod commands;
mod damage;
mod damage_by_command;
mod elsewhere;
mod every_kind;
mod input;
mod migration;
mod offline_kills;
mod points;
mod random;
mod read_only;
#[cfg(feature = "s3")]
mod s3;
mod socket_alerts;
mod state_disk;
mod take_over;

/// The README's example, built so that it obeys `TIDEGATE_FAULT`.
fn word_count() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_word_count_with_faults"))
}

/// The command, which lies where cargo puts all programs.
fn tidegate() -> PathBuf {
    let programs = word_count().parent().unwrap();
    let tidegate = programs.join("tidegate");
    assert!(tidegate.exists(), "{} is not built: `make kills` does that", tidegate.display());
    tidegate
}
