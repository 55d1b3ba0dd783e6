//! Tests of the connectors against their contracts, in simulated and in real processes.

#![allow(clippy::unwrap_used)]

mod file_sink;
mod file_source;
mod memory;
mod moved;
mod overlap;
mod renamed;
mod socket;
