//! Run files of any bytes: see `statebackend::hostile`.

#![allow(clippy::unwrap_used)]

extern crate tidegate_statebackend as statebackend;

#[path = "../../../types/tests/hostile/corpus.rs"]
mod corpus;
mod runs;

use statebackend::hostile::{RUN, RUN_RESTORED};

#[test]
fn any_bytes_are_refused_or_decoded() {
    let command = "cargo test -p tidegate-statebackend --test hostile";
    corpus::try_all(&[(RUN, 10), (RUN_RESTORED, 10)], runs::seeds(), command);
    corpus::try_large(&RUN, "values that become a third", runs::large(), command);
}
