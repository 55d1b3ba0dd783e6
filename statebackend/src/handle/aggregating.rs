//! The handle of an aggregating state.

use types::Result;

use super::{KeyedContext, ValueState};
use crate::Data;

/// How values of one type become one of another, by way of an accumulator, which is what is kept.
///
/// Must do the same for the same values in the same order, whenever it runs: what it did before a failure is done again.
pub trait Aggregate: Clone + Send + Sync + 'static {
    /// What is added.
    type In;
    /// What is kept.
    type Accumulator: Data;
    /// What is asked for.
    type Out;

    /// What is kept before anything is added.
    fn create(&self) -> Self::Accumulator;
    /// Adds a value.
    fn add(&self, accumulator: &mut Self::Accumulator, value: Self::In);
    /// What has been added comes to.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Out;
    /// Adds all that was added to another accumulator, later than what is in this one.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: Self::Accumulator);
}

/// An accumulator per key. Made by [`StateDeclarations::aggregating`](crate::StateDeclarations::aggregating).
#[derive(Clone, Copy, Debug)]
pub struct AggregatingState<A: Aggregate> {
    accumulator: ValueState<A::Accumulator>,
    aggregate: A,
}

impl<A: Aggregate> AggregatingState<A> {
    pub(crate) fn new(accumulator: ValueState<A::Accumulator>, aggregate: A) -> Self {
        Self { accumulator, aggregate }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn add(&self, ctx: &mut impl KeyedContext, value: A::In) -> Result<()> {
        self.accumulator.update(ctx, |place| {
            self.aggregate.add(place.get_or_insert_with(|| self.aggregate.create()), value);
        })
    }

    /// Adds all that was added to another accumulator, later than what is here.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn merge(&self, ctx: &mut impl KeyedContext, other: A::Accumulator) -> Result<()> {
        self.accumulator.update(ctx, |place| match place {
            Some(accumulator) => self.aggregate.merge(accumulator, other),
            None => *place = Some(other),
        })
    }

    /// What has been added comes to; `None` if nothing was.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Option<A::Out>> {
        self.accumulator.with(ctx, |accumulator| accumulator.map(|it| self.aggregate.result(it)))
    }

    /// Forgets all that was added, and gives the accumulator back.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn take(&self, ctx: &mut impl KeyedContext) -> Result<Option<A::Accumulator>> {
        self.accumulator.take(ctx)
    }

    /// Forgets all that was added.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.accumulator.clear(ctx)
    }
}
