//! Run files: the one snapshot format, and everything that reads, writes and merges them.

mod block;
mod bytes;
pub(crate) mod entry;
mod footer;
mod index;
pub(crate) mod list_chunk;
pub(crate) mod reader;
mod schema;
mod sort;
mod writer;

pub use entry::{Entry, EntryKind};
pub use writer::{WrittenRun, run_of, write_run};
