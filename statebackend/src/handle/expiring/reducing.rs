//! What elements are reduced to, with a time to live.

use types::Result;

use super::Expiring;
use crate::{
    Data,
    handle::{KeyedContext, ReducingState},
};

impl<T: Data> Expiring<ReducingState<T>> {
    /// Reduces what there is and `element` to one; begins with `element` if there is nothing.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn add(&self, ctx: &mut impl KeyedContext, element: T) -> Result<()> {
        let (value, reduce) = &self.stored;
        value.update(ctx, |place| {
            *place = Some(match place.take() {
                Some(before) => reduce(before, element),
                None => element,
            });
        })
    }

    /// A copy of what the elements came to; `None` if there were none.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        self.stored.0.get(ctx)
    }

    /// Forgets all elements, and gives back what they came to.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn take(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        self.stored.0.take(ctx)
    }

    /// Forgets all elements.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.stored.0.clear(ctx)
    }
}
