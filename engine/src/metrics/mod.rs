//! Numbers about a running job: [`Metrics`] for the `/metrics` page, [`Accumulators`] for the job's result.

mod accumulators;
mod registry;

pub use accumulators::{Accumulator, Accumulators};
pub use prometheus_client::metrics::{counter::Counter, gauge::Gauge, histogram::Histogram};
pub use registry::{Metrics, OperatorMetrics};
