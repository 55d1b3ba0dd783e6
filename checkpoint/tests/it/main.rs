//! Integration tests of the crate: model searches over its pure parts, and its durable parts in the simulated world.
#![allow(clippy::unwrap_used)]

mod change;
mod collect;
mod collect_offline;
mod collect_plan;
mod crashes;
mod delete;
mod fixture;
mod history_log;
mod history_model;
mod local_recovery;
mod mixer;
mod protocol_model;
mod rivals;
mod snapshots;
mod storage;
