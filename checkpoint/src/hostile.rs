//! The decoders of this crate as [`Target`]s: history records, hints, manifests. Called by the fuzzers in `fuzz/` and by
//! `tests/hostile`. The claim of a savepoint has none: it is only ever compared, byte by byte.

use types::{
    Digest,
    hostile::{FREE_MEMORY, Target},
};

use crate::{
    history::record::{self, Record},
    manifest,
    storage::{envelope::Envelope, paths},
};

/// A history record.
pub const RECORD: Target = Target {
    name: "record",
    decode: |bytes| Record::decode_any(bytes).map(drop),
    repair: |bytes| repair(&record::ENVELOPE, bytes),
    longest: LONGEST,
    free: FREE_MEMORY,
};

/// The hint at a recent record.
pub const HINT: Target = Target {
    name: "hint",
    decode: |bytes| record::decode_hint(bytes).map(drop),
    repair: |bytes| repair(&record::HINT, bytes),
    longest: LONGEST,
    free: FREE_MEMORY,
};

/// A manifest.
pub const MANIFEST: Target = Target {
    name: "manifest",
    decode: |bytes| manifest::decode(paths::SAVEPOINT_MANIFEST, bytes).map(drop),
    repair: |bytes| repair(&manifest::ENVELOPE, bytes),
    longest: LONGEST,
    free: FREE_MEMORY,
};

/// Long enough that many small elements take more than what is free.
const LONGEST: usize = 1 << 20;

/// Where the body begins.
const HEADER_LEN: usize = 24;
/// The digest behind it.
const TRAILER_LEN: usize = 16;

/// Makes magic, version, length and checksums those of the body that is there. What is too short for a body stays.
fn repair(envelope: &Envelope, bytes: &mut [u8]) {
    let Some(body_len) = bytes.len().checked_sub(HEADER_LEN + TRAILER_LEN) else { return };
    bytes[..8].copy_from_slice(&envelope.magic);
    bytes[8..12].copy_from_slice(&envelope.version.to_le_bytes());
    bytes[12..20].copy_from_slice(&(body_len as u64).to_le_bytes());
    let crc = crc32fast::hash(&bytes[..20]);
    bytes[20..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    let (summed, trailer) = bytes.split_at_mut(HEADER_LEN + body_len);
    trailer.copy_from_slice(&Digest::of(summed).0.to_le_bytes());
}
