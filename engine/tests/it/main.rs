//! The engine as its users meet it: whole jobs, started through the public API, run in the simulated world.
//!
//! [`numbers`], [`ledger`] and [`windows`] are what the jobs are made of; [`world`] runs them. Everything else is one
//! claim for each file.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod absolute;
mod alignment;
mod backpressure;
mod bad_input;
mod barrier_life;
mod broadcast_state;
mod broken_store;
mod came_and_went;
mod cancels;
mod check_restore;
mod command_line;
mod compression;
mod counting;
mod endings;
mod event_time;
mod every_second_checkpoint_fails;
mod exactly_once_sim;
mod failing_stores;
mod failures;
mod falling_back;
mod foreign_checkpoint;
mod full_disk;
mod garbage;
mod golden;
mod ledger;
mod list_states;
mod load;
mod local_recovery;
mod memory_backend;
mod migrations;
mod migrations_again;
mod numbers;
mod offline_changes;
mod panicking_ends;
mod panics;
mod partitioners;
mod pending;
mod processing_time;
mod punctuated;
mod real_threads;
mod renamed;
mod rest;
mod retained;
mod retention;
mod same_command;
mod savepoints_asked;
mod slow_prepare;
mod states;
mod stops;
mod take_over;
mod time_to_live;
mod ttl_changes;
mod waiting;
mod windows;
mod working_state;
mod world;
