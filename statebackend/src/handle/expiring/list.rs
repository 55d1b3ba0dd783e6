//! A list whose elements have a time to live each.

use types::Result;

use super::Expiring;
use crate::{
    Data,
    expiry::{Moment, Stamped},
    handle::{KeyedContext, ListState},
};

impl<T: Data> Expiring<ListState<T>> {
    /// Appends an element.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn append(&self, ctx: &mut impl KeyedContext, item: T) -> Result<()> {
        self.extend(ctx, [item])
    }

    /// Appends elements.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn extend(&self, ctx: &mut impl KeyedContext, items: impl IntoIterator<Item = T>) -> Result<()> {
        let deadline = self.ttl.look(ctx).deadline()?;
        self.stored.extend(ctx, items.into_iter().map(|value| Stamped { deadline, value }))
    }

    /// Copies of all elements, oldest first.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if reading refreshes them and the record has no event time.
    pub fn get(&self, ctx: &mut impl KeyedContext) -> Result<Vec<T>> {
        let mut items = Vec::new();
        self.for_each(ctx, |item| items.push(item.clone()))?;
        Ok(items)
    }

    /// Calls `read` with each element, oldest first.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if reading refreshes them and the record has no event time.
    pub fn for_each(&self, ctx: &mut impl KeyedContext, mut read: impl FnMut(&T)) -> Result<()> {
        let moment = self.ttl.look(ctx);
        if self.ttl.refreshed_by_reads {
            self.refresh(ctx, moment)?;
        }
        self.stored.for_each(ctx, |item| {
            if moment.shows(item) {
                read(&item.value);
            }
        })
    }

    /// Whether there are no elements. Does not count as reading them.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn is_empty(&self, ctx: &mut impl KeyedContext) -> Result<bool> {
        let moment = self.ttl.look(ctx);
        let mut is_empty = true;
        self.stored.for_each(ctx, |item| is_empty &= !moment.shows(item))?;
        Ok(is_empty)
    }

    /// Removes all elements.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.stored.clear(ctx)
    }

    /// Removes all elements and appends others.
    ///
    /// # Errors
    /// Those of the store behind the table. `User` if the record has no event time.
    pub fn replace(&self, ctx: &mut impl KeyedContext, items: impl IntoIterator<Item = T>) -> Result<()> {
        let deadline = self.ttl.look(ctx).deadline()?;
        self.stored.replace(ctx, items.into_iter().map(|value| Stamped { deadline, value }))
    }

    /// Gives all elements that live the deadline of now, if one of them has an earlier one.
    fn refresh(&self, ctx: &mut impl KeyedContext, moment: Moment) -> Result<()> {
        let deadline = moment.deadline()?;
        let mut items = Vec::new();
        let mut is_older = false;
        self.stored.for_each(ctx, |item| {
            if moment.shows(item) {
                is_older |= item.deadline < deadline;
                items.push(Stamped { deadline: deadline.max(item.deadline), value: item.value.clone() });
            }
        })?;
        if is_older { self.stored.replace(ctx, items) } else { Ok(()) }
    }
}
