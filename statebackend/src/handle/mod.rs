//! What user code holds of a declared state: small `Copy` indexes whose methods work on the current key of a context.

mod aggregating;
mod expiring;
mod list;
mod map;
mod reducing;
mod value;

pub use aggregating::{Aggregate, AggregatingState};
pub use expiring::{Expirable, Expiring};
pub use list::ListState;
pub use map::MapState;
pub use reducing::ReducingState;
pub use value::ValueState;

use types::Timestamp;

use crate::{key::KeyRef, table::KeyedState};

/// What a handle works on: the current key and the state of the subtask. Implemented by the engine's contexts.
pub trait KeyedContext {
    /// The key of the record or timer being processed, and the state.
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState);

    /// The event time of the record or timer being processed, if it has one: from then on lives what is written with an
    /// event-time [`Ttl`](crate::Ttl).
    fn event_time(&self) -> Option<Timestamp> {
        None
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident<$($type:ident),+>) => {
        $(#[$doc])*
        pub struct $name<$($type),+> {
            pub(crate) index: u16,
            types: std::marker::PhantomData<fn() -> ($($type,)+)>,
        }

        impl<$($type),+> $name<$($type),+> {
            pub(crate) fn new(index: u16) -> Self {
                Self { index, types: std::marker::PhantomData }
            }
        }

        impl<$($type),+> Clone for $name<$($type),+> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<$($type),+> Copy for $name<$($type),+> {}

        impl<$($type),+> std::fmt::Debug for $name<$($type),+> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.index)
            }
        }
    };
}
use handle;
