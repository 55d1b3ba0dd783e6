//! The handle of a value state.

use types::Result;

use super::{KeyedContext, handle};
use crate::{Data, table::Need};

handle! {
    /// One value per key. Made by [`StateDeclarations::value`](crate::StateDeclarations::value).
    ValueState<T>
}

impl<T: Data> ValueState<T> {
    /// A copy of the value.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        self.with(ctx, |value| value.cloned())
    }

    /// What `read` makes of the value, without copying it.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn with<R>(&self, ctx: &mut impl KeyedContext, read: impl FnOnce(Option<&T>) -> R) -> Result<R> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::Value)?;
        Ok(read(state.value_table(*self).get(key)))
    }

    /// Puts a value.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn set(&self, ctx: &mut impl KeyedContext, value: T) -> Result<()> {
        self.update(ctx, |place| *place = Some(value))
    }

    /// Puts a value and gives back the one before.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn replace(&self, ctx: &mut impl KeyedContext, value: T) -> Result<Option<T>> {
        self.update(ctx, |place| place.replace(value))
    }

    /// Removes the value and gives it back.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn take(&self, ctx: &mut impl KeyedContext) -> Result<Option<T>> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::Value)?;
        Ok(state.value_table(*self).take(key))
    }

    /// Removes the value.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.take(ctx).map(drop)
    }

    /// Lets `change` put, replace or remove the value in place. Counts as a change whatever it does.
    ///
    /// # Errors
    /// Those of the store behind the table. Of state in memory, `Corrupt` if a value cannot be decoded after a restore.
    #[inline]
    pub fn update<R>(
        &self,
        ctx: &mut impl KeyedContext,
        change: impl FnOnce(&mut Option<T>) -> R,
    ) -> Result<R> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::Value)?;
        Ok(state.value_table(*self).update(key, change))
    }
}
