//! An accumulator with a time to live.

use types::Result;

use super::Expiring;
use crate::handle::{Aggregate, AggregatingState, KeyedContext};

impl<A: Aggregate> Expiring<AggregatingState<A>> {
    /// Adds a value.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn add(&self, ctx: &mut impl KeyedContext, value: A::In) -> Result<()> {
        let (accumulator, aggregate) = &self.stored;
        accumulator.update(ctx, |place| aggregate.add(place.get_or_insert_with(|| aggregate.create()), value))
    }

    /// Adds all that was added to another accumulator, later than what is here.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn merge(&self, ctx: &mut impl KeyedContext, other: A::Accumulator) -> Result<()> {
        let (accumulator, aggregate) = &self.stored;
        accumulator.update(ctx, |place| match place {
            Some(accumulator) => aggregate.merge(accumulator, other),
            None => *place = Some(other),
        })
    }

    /// What has been added comes to; `None` if nothing was.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Option<A::Out>> {
        let (accumulator, aggregate) = &self.stored;
        accumulator.with(ctx, |accumulator| accumulator.map(|it| aggregate.result(it)))
    }

    /// Forgets all that was added, and gives the accumulator back.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn take(&self, ctx: &mut impl KeyedContext) -> Result<Option<A::Accumulator>> {
        self.stored.0.take(ctx)
    }

    /// Forgets all that was added.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.stored.0.clear(ctx)
    }
}
