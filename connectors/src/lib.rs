//! Sources and two-phase-commit sinks, one folder per outside system.
//!
//! | connector | guarantee |
//! |---|---|
//! | [`FileSource`], [`GeneratorSource`], [`CollectionSource`] | exactly once |
//! | [`SocketSource`] | at most once after a failure |
//! | [`FileSink`] | exactly once |
//! | [`CollectSink`] | exactly once within one process |
//! | [`PrintSink`], [`PlainCollectSink`], [`DiscardSink`] | at least once |
//!
//! Sources keep the contract of [`engine::api::source`], sinks that of [`engine::api::sink`]; the kits in
//! `conformance` (feature `test-util`) check both, for connectors outside this crate too.

mod background;
pub mod collect;
pub mod collection;
#[cfg(feature = "test-util")]
pub mod conformance;
pub mod discard;
pub mod file_sink;
pub mod file_source;
pub mod generator;
mod place;
pub mod print;
mod range;
pub mod socket;

pub use collect::{CollectSink, Collected, PlainCollectSink};
pub use collection::CollectionSource;
pub use discard::{DiscardSink, Discarded};
pub use file_sink::FileSink;
pub use file_source::FileSource;
pub use generator::GeneratorSource;
pub use print::PrintSink;
pub use range::RangeSplit;
pub use socket::SocketSource;
