//! The handle of a reducing state.

use std::fmt;

use types::Result;

use super::{KeyedContext, ValueState};
use crate::Data;

/// What all elements added under a key come to, of their own type. Made by
/// [`StateDeclarations::reducing`](crate::StateDeclarations::reducing).
pub struct ReducingState<T> {
    value: ValueState<T>,
    reduce: fn(T, T) -> T,
}

impl<T: Data> ReducingState<T> {
    pub(crate) fn new(value: ValueState<T>, reduce: fn(T, T) -> T) -> Self {
        Self { value, reduce }
    }

    /// Adds an element: what there was comes first, the element second. The first one of a key is taken as it is.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn add(&self, ctx: &mut impl KeyedContext, element: T) -> Result<()> {
        self.value.update(ctx, |place| {
            *place = Some(match place.take() {
                Some(earlier) => (self.reduce)(earlier, element),
                None => element,
            });
        })
    }

    /// A copy of what was added, reduced; `None` if nothing was.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        self.value.get(ctx)
    }

    /// What `read` makes of it, without copying it.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn with<R>(&self, ctx: &mut impl KeyedContext, read: impl FnOnce(Option<&T>) -> R) -> Result<R> {
        self.value.with(ctx, read)
    }

    /// Forgets all that was added, and gives back what it came to.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn take(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        self.value.take(ctx)
    }

    /// Forgets all that was added.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.value.clear(ctx)
    }
}

impl<T> Clone for ReducingState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ReducingState<T> {}

impl<T> fmt::Debug for ReducingState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReducingState({})", self.value.index)
    }
}
