//! The shapes around a part, while a value is read by its shape: what a recursive shape refers to.

use super::Shape;

/// How many shapes may be entered on the way to one part: three for each of the levels that a stored value may have.
pub(super) const MAX_DEPTH: u32 = 400;

/// A shape around another one.
pub(super) struct Around<'a> {
    pub(super) shape: &'a Shape,
    pub(super) outer: Option<&'a Around<'a>>,
}

impl<'a> Around<'a> {
    /// What stands `levels` further out than `nearest`, with its own place.
    pub(super) fn out(nearest: Option<&'a Self>, levels: u32) -> Option<&'a Self> {
        (0..levels).fold(nearest, |around, _| around.and_then(|around| around.outer))
    }
}
