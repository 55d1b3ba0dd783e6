//! What RocksDB says, as an error of ours.

use std::path::Path;

use rocksdb::ErrorKind;
use types::Error;

use crate::store::directory::REMEDY;

/// An error of a call that `doing` describes, on the database in `dir`.
pub(super) fn error(dir: &Path, doing: &str, error: &rocksdb::Error) -> Error {
    let text = format!("RocksDB in {} cannot {doing}: {error}", dir.display());
    match error.kind() {
        ErrorKind::Corruption => Error::corrupt(text).with_advice(
            "the disk may be failing: the job restores the working state from its last checkpoint, on another disk with \
             state.directory",
        ),
        ErrorKind::InvalidArgument | ErrorKind::NotSupported => Error::invalid_job(text),
        _ => Error::unavailable(text).with_advice(REMEDY),
    }
}
