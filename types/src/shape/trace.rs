//! Finds the shape of a type through its `Deserialize`: the type is asked again and again to read itself, and each time
//! it is shown values that lead to places not yet known. Called when a state is declared.
//!
//! What was found is kept by its place in the type, never by the name of a type. Nothing that a type does makes this
//! fail: a type may check what it reads, so several values are tried ([`samples`]); where all are refused, what lies
//! behind is reached by field names, and what cannot be reached stays `Unknown`.

mod access;
mod place;
mod samples;
mod serde_impl;
mod tracer;

use serde::de::DeserializeOwned;

use self::{
    place::{Place, Progress},
    tracer::Tracer,
};
use super::Shape;

/// How often a type is asked at most; each time finds at least one place or tries another value.
const MAX_PASSES: usize = 4_000;
/// How often in a row nothing new may come out: other variants may still give the missing piece of a recursive type.
const MAX_IDLE_PASSES: usize = 32;

impl Shape {
    /// The shape of `T`, as far as it can be found without a value: see [`is_complete`](Self::is_complete).
    #[must_use]
    pub fn trace<T: DeserializeOwned>() -> Self {
        let mut root = Place::default();
        let progress = Progress::default();
        let mut idle = 0;
        for _ in 0..MAX_PASSES {
            let before = progress.steps();
            // The value itself does not matter, nor whether there was one.
            let _ = root.explore(&progress, |root| T::deserialize(Tracer::new(root, &progress)));
            idle = if progress.steps() == before { idle + 1 } else { 0 };
            if root.is_done() || idle > MAX_IDLE_PASSES {
                break;
            }
        }
        root.shape()
    }
}
