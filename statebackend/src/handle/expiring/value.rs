//! A value with a time to live.

use types::Result;

use super::Expiring;
use crate::{
    Data,
    expiry::Stamped,
    handle::{KeyedContext, ValueState},
};

impl<T: Data> Expiring<ValueState<T>> {
    /// A copy of the value.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        self.with(ctx, |value| value.cloned())
    }

    /// What `read` makes of the value, without copying it.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if reading refreshes it and the record has no event time.
    pub fn with<R>(&self, ctx: &mut impl KeyedContext, read: impl FnOnce(Option<&T>) -> R) -> Result<R> {
        let moment = self.ttl.look(ctx);
        if self.ttl.refreshed_by_reads {
            let deadline = moment.deadline()?;
            let is_older = |it: &Stamped<T>| moment.shows(it) && it.deadline < deadline;
            if self.stored.with(ctx, |value| value.is_some_and(is_older))? {
                self.stored.update(ctx, |place| {
                    if let Some(value) = place {
                        value.deadline = deadline;
                    }
                })?;
            }
        }
        self.stored
            .with(ctx, |value| read(value.filter(|value| moment.shows(value)).map(|stamped| &stamped.value)))
    }

    /// Puts a value.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn set(&self, ctx: &mut impl KeyedContext, value: T) -> Result<()> {
        self.update(ctx, |place| *place = Some(value))
    }

    /// Puts a value and gives back the one before.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn replace(&self, ctx: &mut impl KeyedContext, value: T) -> Result<Option<T>> {
        self.update(ctx, |place| place.replace(value))
    }

    /// Removes the value and gives it back.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn take(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        let moment = self.ttl.look(ctx);
        let taken = self.stored.take(ctx)?;
        Ok(taken.filter(|value| moment.shows(value)).map(|stamped| stamped.value))
    }

    /// Removes the value.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.stored.clear(ctx)
    }

    /// Lets `change` put, replace or remove the value in place. Counts as writing whatever it does. A record that comes late
    /// does not shorten the life of what lives.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn update<R>(
        &self,
        ctx: &mut impl KeyedContext,
        change: impl FnOnce(&mut Option<T>) -> R,
    ) -> Result<R> {
        let moment = self.ttl.look(ctx);
        let deadline = moment.deadline()?;
        self.stored.update(ctx, |place| Stamped::update(place, moment, deadline, change))
    }
}
