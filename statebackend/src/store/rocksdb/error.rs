//! What RocksDB says, as an error of ours.

use std::path::Path;

use rocksdb::ErrorKind;
use types::Error;

use crate::store::directory::REMEDY;

/// An error of a call that `doing` describes, on the database in `dir`. Whatever is wrong there, the checkpoint is not: the
/// next attempt fills a new directory from it.
pub(super) fn error(dir: &Path, doing: &str, error: &rocksdb::Error) -> Error {
    let text = format!("RocksDB in {} cannot {doing}: {error}", dir.display());
    Error::unavailable(text).with_advice(match error.kind() {
        ErrorKind::Corruption => "its disk may be failing: choose another with state.directory",
        _ if error.as_ref().contains("Too many open files") => {
            "allow the process more open files (ulimit -n)"
        }
        _ => REMEDY,
    })
}
