//! Lines from text files.
//!
//! # Guarantee
//! [`FileSource`] is exactly-once: positions are byte offsets, and a file that was cut, or changed within 64 KiB below
//! the offset, is an error and never a silent gap. It reads what the files held when the job first started.

mod discover;
mod input;
mod reader;
mod source;
mod split;

pub use reader::{FileReader, LineOutput};
pub use source::FileSource;
pub use split::FileSplit;
