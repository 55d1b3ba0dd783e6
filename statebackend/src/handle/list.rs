//! The handle of a list state.

use types::Result;

use super::{KeyedContext, handle};
use crate::{Data, table::Need};

handle! {
    /// A list per key. Made by [`StateDeclarations::list`](crate::StateDeclarations::list).
    ListState<T>
}

impl<T: Data> ListState<T> {
    /// Appends an element.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn append(&self, ctx: &mut impl KeyedContext, item: T) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::Tail)?;
        state.list_table(*self).append(key, item);
        Ok(())
    }

    /// Appends elements.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn extend(&self, ctx: &mut impl KeyedContext, items: impl IntoIterator<Item = T>) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::Tail)?;
        state.list_table(*self).extend(key, items);
        Ok(())
    }

    /// Copies of all elements, oldest first.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Vec<T>> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::List)?;
        Ok(state.list_table(*self).get(key).to_vec())
    }

    /// Calls `read` with each element, oldest first.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn for_each(&self, ctx: &mut impl KeyedContext, read: impl FnMut(&T)) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::List)?;
        state.list_table(*self).get(key).iter().for_each(read);
        Ok(())
    }

    /// Whether there are no elements.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn is_empty(&self, ctx: &mut impl KeyedContext) -> Result<bool> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::List)?;
        Ok(state.list_table(*self).get(key).is_empty())
    }

    /// Removes all elements.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::List)?;
        state.list_table(*self).clear(key);
        Ok(())
    }

    /// Removes all elements and appends others.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn replace(&self, ctx: &mut impl KeyedContext, items: impl IntoIterator<Item = T>) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::List)?;
        let table = state.list_table(*self);
        table.clear(key);
        table.extend(key, items);
        Ok(())
    }
}
