//! Handles of state with a time to live: those of state without, with a deadline at each value, element or entry.
//!
//! What has expired is as if it were not there. Made by
//! [`StateDeclarations::expiring`](crate::StateDeclarations::expiring).

mod aggregating;
mod list;
mod map;
mod reducing;
mod value;

use super::{Aggregate, AggregatingState, ListState, MapState, ReducingState, ValueState};
use crate::{
    Data,
    expiry::{Stamped, Ttl},
};

/// The handle of a state whose parts expire one by one: `Expiring<ValueState<T>>` is a value state with a time to live.
pub struct Expiring<H: Expirable> {
    stored: H::Stored,
    ttl: Ttl,
}

/// A kind of keyed state that can have a time to live.
pub trait Expirable: sealed::Sealed {
    /// What is kept.
    #[doc(hidden)]
    type Stored: Clone;
}

impl<H: Expirable> Expiring<H> {
    pub(crate) fn new(stored: H::Stored, ttl: Ttl) -> Self {
        Self { stored, ttl }
    }

    /// How long it lives.
    #[must_use]
    pub fn ttl(&self) -> Ttl {
        self.ttl
    }
}

impl<H: Expirable> Clone for Expiring<H> {
    fn clone(&self) -> Self {
        Self { stored: self.stored.clone(), ttl: self.ttl }
    }
}

impl<H: Expirable<Stored: Copy>> Copy for Expiring<H> {}

impl<H: Expirable> std::fmt::Debug for Expiring<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expiring").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! expirable {
    ($([$($generics:tt)*] $handle:ty => $stored:ty;)+) => {
        $(
            impl<$($generics)*> sealed::Sealed for $handle {}
            impl<$($generics)*> Expirable for $handle {
                type Stored = $stored;
            }
        )+
    };
}

expirable! {
    [T: Data] ValueState<T> => ValueState<Stamped<T>>;
    [T: Data] ListState<T> => ListState<Stamped<T>>;
    [K: Data, V: Data] MapState<K, V> => MapState<K, Stamped<V>>;
    [T: Data] ReducingState<T> => (Expiring<ValueState<T>>, fn(T, T) -> T);
    [A: Aggregate] AggregatingState<A> => (Expiring<ValueState<A::Accumulator>>, A);
}
