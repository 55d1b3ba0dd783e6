//! History records, hints and manifests of any bytes: see `checkpoint::hostile`.

#![allow(clippy::unwrap_used)]

extern crate tidegate_checkpoint as checkpoint;

#[path = "../../../types/tests/hostile/corpus.rs"]
mod corpus;
mod files;

use checkpoint::hostile::{HINT, MANIFEST, RECORD};

#[test]
fn any_bytes_are_refused_or_decoded() {
    let command = "cargo test -p tidegate-checkpoint --test hostile";
    corpus::try_all(&[(RECORD, 10), (HINT, 10), (MANIFEST, 10)], files::seeds(), command);
    corpus::try_large(&MANIFEST, "a large job's manifest", files::large(), command);
}
