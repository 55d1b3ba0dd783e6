//! All integration tests of the crate in one binary.

#![allow(clippy::unwrap_used)]

extern crate tidegate_statebackend as statebackend;

mod damage;
mod declare;
mod expiring;
mod fixture;
mod flip;
mod gauge;
mod golden;
mod large;
mod migration;
mod migration_bounds;
mod migration_once;
mod migration_ttl;
mod model;
mod one_hash;
mod ranges;
mod stored;
mod stored_maps;
mod stores;
mod sweeps;
mod verified;
mod waiting;
mod whole;
