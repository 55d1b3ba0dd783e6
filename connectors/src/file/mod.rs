//! Text files: a source of lines, and a sink whose published files hold each record exactly once.
//!
//! # Guarantees
//! * [`FileSource`] is exactly-once: positions are byte offsets, and a file that was cut, or changed within 64 KiB below
//!   the offset, is an error and never a silent gap. It reads what the files held when the job first started.
//! * [`FileSink`] is exactly-once: `part-*` shows committed records only, at any moment and after any crash. It needs
//!   checkpoints, and a local file system that renames atomically.

mod background;
mod discover;
mod input;
mod naming;
mod output_dir;
mod owner;
mod part;
mod reader;
mod sink;
mod source;
mod split;

pub use output_dir::{PreparedFile, PreparedFiles};
pub use part::SealedParts;
pub use reader::{FileReader, LineOutput};
pub use sink::{FileCommitter, FileSink, FileWriter};
pub use source::FileSource;
pub use split::FileSplit;
