//! Shapes, keys and values of any bytes: see `types::hostile`.

#![allow(clippy::unwrap_used)]

extern crate tidegate_types as types;

mod corpus;

use types::hostile::{KEY, SHAPE, SHAPED_VALUE, VALUE, seeds};

#[test]
fn any_bytes_are_refused_or_decoded() {
    let targets = [(SHAPE, 10), (KEY, 10), (VALUE, 10), (SHAPED_VALUE, 10)];
    corpus::try_all(&targets, seeds().unwrap(), "cargo test -p tidegate-types --test hostile");
}
