//! Run files: the one snapshot format, and everything that reads, writes and merges them.

pub(crate) mod block;
mod bytes;
mod canonical;
mod columns;
mod contexts;
pub(crate) mod copy;
pub(crate) mod driver;
pub(crate) mod entry;
mod expire;
pub(crate) mod footer;
mod index;
pub(crate) mod list_chunk;
pub(crate) mod live;
mod merge;
mod policy;
pub(crate) mod reader;
mod resolve;
pub(crate) mod schema;
mod select;
mod sort;
mod verified;
mod verify;
pub(crate) mod writer;

pub use block::RunCompression;
pub use canonical::{StateCount, StateSummary};
pub use driver::{RunSet, copy_canonical, merge, summarize};
pub use entry::{Entry, EntryKind};
pub use live::{LiveBatch, LiveEntry, Scan, scan};
pub(crate) use merge::Sink;
pub use policy::{MergePolicy, plan_merge};
pub use select::{KeySelection, Selection};
pub use verified::{VerifiedCopy, copy_verified, verify_copy};
pub use verify::{VerifyReport, decompress_run, verify_file, verify_run};
pub use writer::{WrittenRun, run_of, write_run};
