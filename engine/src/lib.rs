//! Job API, graph, operators, tasks, JobManager and TaskManager, recovery, REST.
//!
//! A job is written with [`prelude`]; [`api`] holds all of it. [`graph`] makes tasks of it, [`operators`] are what they
//! run, [`record`] is what flows between them.

pub mod api;
pub mod cluster;
pub mod config;
pub mod graph;
pub mod metrics;
pub mod operators;
pub mod record;
mod recovery;
mod rest;
mod task;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;

/// What a start from a snapshot would do, as [`Job::check_restore`](prelude::Job::check_restore) says it.
pub use recovery::dry_run::{Outcome, RestoreReport, RestoreRow};
/// What signatures of this crate name, whole: who depends on this crate needs no other to name it.
pub use {checkpoint, env, types};

/// What a program with a job needs: `use tidegate::prelude::*`.
pub mod prelude {
    pub use checkpoint::restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategy};
    pub use env::Env;
    pub use statebackend::{
        Aggregate, AggregatingState, Expiring, ListState, MapState, ReducingState, RunCompression, Ttl,
        ValueState,
    };
    pub use types::{Error, ErrorKind, Result, Timestamp};

    pub use crate::{
        api::{
            data::{Data, Key},
            declare::{BroadcastState, Declarations, OperatorListState, OutputTag, SideOutput},
            function::{Collector, RichFunction},
            job::Job,
            keyed_stream::KeyedStream,
            migrating::Migrating,
            process::{Context, ProcessFunction},
            run::{Checkpoints, parse_args},
            stream::Stream,
            watermark::WatermarkStrategy,
        },
        cluster::{
            attempt::Ask,
            job_manager::JobResult,
            local::{JobControl, JobHandle},
            status::JobStatus,
        },
        config::{Backend, JobArgs, RestAddress},
        metrics::{Accumulator, Counter, Gauge, Histogram},
        operators::operator::RuntimeContext,
    };
}
