//! Tidegate: a stream processor built around its state. Whatever dies on the way, the visible result is the one that a
//! run without failures would have produced.
//!
//! A job is a Rust program:
//!
//! ```no_run
//! use tidegate::prelude::*;
//!
//! # fn main() -> std::process::ExitCode {
//! let job = Job::new("word-count");
//! job.source("lines", FileSource::lines("books/"))
//!     .flat_map(|line| line.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>())
//!     .key_by(String::clone)
//!     .count("count")
//!     .map(|(word, count)| format!("{word}\t{count}"))
//!     .sink("counts", FileSink::lines("counts/"));
//! job.main()
//! # }
//! ```
//!
//! Start it with `--checkpoints DIR`, kill it with `kill -9`, start it again with the same command: the output holds
//! what an undisturbed run would have written.

pub use connectors;
pub use engine;
pub use statebackend;

/// Everything that a program with a job needs: `use tidegate::prelude::*`.
pub mod prelude {
    pub use connectors::{
        collect::CollectSink, collection::CollectionSource, discard::DiscardSink, file_sink::FileSink,
        file_source::FileSource, generator::GeneratorSource, print::PrintSink, socket::SocketSource,
    };
    pub use engine::prelude::*;
}
