//! What sled says, as an error of ours.

use std::path::Path;

use types::Error;

use crate::store::directory::REMEDY;

/// An error of a call that `doing` describes, on the database in `dir`.
pub(super) fn error(dir: &Path, doing: &str, error: &sled::Error) -> Error {
    let text = format!("sled in {} cannot {doing}: {error}", dir.display());
    match error {
        sled::Error::Corruption { .. } => Error::corrupt(text).with_advice(
            "the disk may be failing: the job restores the working state from its last checkpoint, on another disk with \
             state.directory",
        ),
        sled::Error::Unsupported(_) => Error::invalid_job(text),
        sled::Error::Io(_) => Error::unavailable(text).with_advice(REMEDY),
        _ => Error::internal(text),
    }
}
