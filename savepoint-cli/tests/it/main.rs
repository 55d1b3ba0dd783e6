//! The command as people meet it: the real program, on directories made through the library and against a server that
//! answers what a job would.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod arrows;
mod bad_input;
mod change;
mod command;
mod diff;
mod directory;
mod expiring;
mod gc;
mod job;
mod live;
mod migrated;
mod offline;
mod query;
mod shop;
