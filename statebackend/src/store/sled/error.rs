//! What sled says, as an error of ours.

use std::path::Path;

use types::Error;

use crate::store::directory::REMEDY;

/// An error of a call that `doing` describes, on the database in `dir`. Whatever is wrong there, the checkpoint is not: the
/// next attempt fills a new directory from it.
pub(super) fn error(dir: &Path, doing: &str, error: &sled::Error) -> Error {
    let text = format!("sled in {} cannot {doing}: {error}", dir.display());
    Error::unavailable(text).with_advice(match error {
        sled::Error::Corruption { .. } => "its disk may be failing: choose another with state.directory",
        _ => REMEDY,
    })
}
