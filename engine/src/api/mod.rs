//! All that the author of a job, a source or a sink sees. No runtime code.
//!
//! [`job`] and [`stream`], [`keyed_stream`], [`sink_stream`] describe the graph; [`function`] and [`process`] are the
//! functions with a life, [`declare`] what they keep, [`migrating`] what they kept as another type; [`watermark`] is event time; [`source`] and [`sink`] are the
//! contracts of connectors, [`pace`] is a rate limit for sources, [`into_sink`] makes `stream.sink(..)` take both kinds of
//! sinks. [`erased`] is what the runtime sees of sources, sinks and exchanges.

pub mod data;
pub mod declare;
pub mod erased;
pub mod function;
pub mod into_sink;
pub mod job;
pub mod keyed_stream;
pub mod migrating;
pub mod pace;
pub mod process;
pub mod run;
pub mod sink;
pub mod sink_stream;
pub mod source;
pub mod stream;
pub mod watermark;
