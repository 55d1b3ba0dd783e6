//! What the command line shows of a directory without running the job: what is there ([`list`]) and whether it is whole
//! ([`verify`]). Reads only.

mod list;
mod verify;
mod whole;

pub use list::{CheckpointInfo, Listing, SavepointInfo, list};
pub(crate) use verify::check_len;
pub use verify::{Problem, Progress, Report, Severity, Survey, check_file, needed, survey, verify};
pub use whole::{choices, whole_before};
