//! The manifest's file: its bytes, and how it gets into a store and back. A manifest that breaks an invariant is never
//! written and never used.

use bytes::Bytes;
use env::{Env, FaultPoint, Store};
use types::{Digest, Error, Result, SnapshotFile};

use super::{Manifest, invariants};
use crate::storage::{envelope::Envelope, paths, retry::Retry};

pub(crate) const ENVELOPE: Envelope = Envelope { magic: *b"TGMANIF\0", version: 1, what: "manifest" };

/// The bytes of a manifest's file.
///
/// # Errors
/// `Internal` if the manifest breaks an invariant.
pub fn encode(manifest: &Manifest) -> Result<Bytes> {
    if let Some(violation) = invariants::violation(manifest) {
        let checkpoint = manifest.checkpoint;
        return Err(Error::internal(format!(
            "the manifest of checkpoint {checkpoint} is wrong: {violation}"
        )));
    }
    ENVELOPE.seal(manifest)
}

/// The manifest in the bytes of a file; `path` is for messages.
///
/// # Errors
/// `Corrupt` if the bytes are not an intact manifest, it breaks an invariant, or a newer version wrote it.
pub fn decode(path: &str, bytes: &[u8]) -> Result<Manifest> {
    let manifest = ENVELOPE.open(path, bytes)?;
    match invariants::violation(&manifest) {
        None => Ok(manifest),
        Some(violation) => Err(Error::corrupt(format!("manifest {path} is damaged: {violation}"))),
    }
}

/// Makes a checkpoint's manifest durable and describes the file for the history.
///
/// # Errors
/// As [`encode`]; `Retryable` or `Unavailable` if the store refuses: the checkpoint has then failed.
pub async fn write(env: &Env, store: &dyn Store, manifest: &Manifest) -> Result<SnapshotFile> {
    env.fault(FaultPoint::ManifestBefore)?;
    let bytes = encode(manifest)?;
    let path = paths::manifest(manifest.attempt, manifest.checkpoint);
    Retry::STORE.create_own(env, store, &path, &bytes).await?;
    env.fault(FaultPoint::ManifestAfter)?;
    Ok(SnapshotFile { path, len: bytes.len() as u64, digest: Digest::of(&bytes) })
}

/// Reads the manifest that the history describes as `file`.
///
/// # Errors
/// `Corrupt` naming the file if it is missing, or anything about it is not as described; `Retryable` or `Unavailable`
/// if the store cannot be reached.
pub async fn read(env: &Env, store: &dyn Store, file: &SnapshotFile) -> Result<Manifest> {
    let path = &file.path;
    let bytes = Retry::STORE.run(env, "read a manifest", || store.get(path)).await?;
    let Some(bytes) = bytes else {
        return Err(Error::corrupt(format!("manifest {path} in {} is missing", store.url())));
    };
    let (len, digest) = (bytes.len() as u64, Digest::of(&bytes));
    if len != file.len || digest != file.digest {
        return Err(Error::corrupt(format!(
            "manifest {path} in {} is damaged: it has {len} bytes with digest {digest}, the history says {} bytes \
             with digest {}",
            store.url(),
            file.len,
            file.digest
        )));
    }
    decode(path, &bytes)
}
