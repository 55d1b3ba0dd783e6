//! Text files whose published names hold each record exactly once.
//!
//! # Guarantee
//! [`FileSink`] is exactly-once: `part-*` shows committed records only, at any moment and after any crash. It needs
//! checkpoints, and a local file system that renames atomically.

mod naming;
mod output_dir;
mod owner;
mod part;
mod sink;

pub use output_dir::{PreparedFile, PreparedFiles};
pub use part::SealedParts;
pub use sink::{FileCommitter, FileSink, FileWriter};
