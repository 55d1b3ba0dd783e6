//! The handle of a map state.

use std::ops::ControlFlow;

use types::{Bincode, Codec, Result, ordered};

use super::{KeyedContext, handle};
use crate::{
    Data,
    key::KeyRef,
    store::Order,
    table::{MapTable, Need, Seen},
};

handle! {
    /// A sorted map per key. Made by [`StateDeclarations::map`](crate::StateDeclarations::map).
    ///
    /// The order is that of the map keys' ordered encoding, which is the order of their values.
    MapState<K, V>
}

impl<K: Data, V: Data> MapState<K, V> {
    /// A copy of the value under `map_key`.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table.
    pub fn get(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<Option<V>> {
        self.at(ctx, map_key, |sub| Need::Entry(sub), |table, key, sub| table.get(key, sub).cloned())
    }

    /// Whether there is a value under `map_key`.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table.
    pub fn contains(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<bool> {
        self.at(ctx, map_key, |sub| Need::Entry(sub), |table, key, sub| table.get(key, sub).is_some())
    }

    /// Puts a value under `map_key` and gives back the one before.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table.
    pub fn put(&self, ctx: &mut impl KeyedContext, map_key: &K, value: V) -> Result<Option<V>> {
        self.update(ctx, map_key, |place| place.replace(value))
    }

    /// Lets `change` put, replace or remove the value under `map_key`. Counts as a change whatever it does.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table.
    pub fn update<R>(
        &self,
        ctx: &mut impl KeyedContext,
        map_key: &K,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R> {
        self.at(ctx, map_key, |sub| Need::Change(sub), |table, key, sub| table.update(key, sub, change))
    }

    /// Removes the value under `map_key` and gives it back.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table.
    pub fn remove(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<Option<V>> {
        self.at(ctx, map_key, |sub| Need::Change(sub), MapTable::remove)
    }

    /// Calls `read` with each entry, in the order of the map keys.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn for_each(&self, ctx: &mut impl KeyedContext, mut read: impl FnMut(K, &V)) -> Result<()> {
        self.visit(ctx, Order::Ascending, |map_key, value| {
            match value {
                Seen::Resident(value) => read(map_key, value),
                Seen::Stored(bytes) => read(map_key, &Bincode::decode(bytes)?),
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Copies of all entries, in the order of the map keys.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn entries(&self, ctx: &mut impl KeyedContext) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.visit(ctx, Order::Ascending, |map_key, value| {
            entries.push((map_key, owned(value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(entries)
    }

    /// A copy of the entry with the least map key.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn first(&self, ctx: &mut impl KeyedContext) -> Result<Option<(K, V)>> {
        self.next(ctx, Order::Ascending)
    }

    /// A copy of the entry with the greatest map key.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn last(&self, ctx: &mut impl KeyedContext) -> Result<Option<(K, V)>> {
        self.next(ctx, Order::Descending)
    }

    /// How many entries there are. With a store behind, they are counted one by one.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn len(&self, ctx: &mut impl KeyedContext) -> Result<usize> {
        let (key, state) = ctx.keyed();
        if !state.is_map_partial::<V>(self.index, key) {
            return Ok(state.map_table(*self).len(key));
        }
        let mut len = 0;
        state.visit_map(self.index, key, Order::Ascending, |_, _: Seen<'_, V>| {
            len += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(len)
    }

    /// Whether there are no entries.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn is_empty(&self, ctx: &mut impl KeyedContext) -> Result<bool> {
        let (key, state) = ctx.keyed();
        let mut is_empty = true;
        state.visit_map(self.index, key, Order::Ascending, |_, _: Seen<'_, V>| {
            is_empty = false;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(is_empty)
    }

    /// Removes all entries, in constant time.
    ///
    /// # Errors
    /// Those of the store behind the table; none while all state is in memory.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.reach(self.index, key, Need::Clear)?;
        state.map_table(*self).clear(key);
        Ok(())
    }

    /// Calls `visit` with each entry in `order`, until it breaks.
    pub(super) fn visit(
        &self,
        ctx: &mut impl KeyedContext,
        order: Order,
        mut visit: impl FnMut(K, Seen<'_, V>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.visit_map(self.index, key, order, |sub, value| visit(ordered::decode(sub)?, value))
    }

    /// A copy of the first entry in `order`.
    fn next(&self, ctx: &mut impl KeyedContext, order: Order) -> Result<Option<(K, V)>> {
        let mut first = None;
        self.visit(ctx, order, |map_key, value| {
            first = Some((map_key, owned(value)?));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    /// Runs `work` with the ordered bytes of `map_key`, when what is needed of it is there.
    fn at<R>(
        &self,
        ctx: &mut impl KeyedContext,
        map_key: &K,
        need: impl FnOnce(&[u8]) -> Need<'_>,
        work: impl FnOnce(&mut MapTable<V>, KeyRef<'_>, &[u8]) -> R,
    ) -> Result<R> {
        let (key, state) = ctx.keyed();
        let mut sub = std::mem::take(&mut state.scratch);
        sub.clear();
        let ready =
            ordered::encode_into(map_key, &mut sub).and_then(|()| state.reach(self.index, key, need(&sub)));
        let result = ready.map(|()| work(state.map_table(*self), key, &sub));
        state.scratch = sub;
        result
    }
}

fn owned<V: Data>(value: Seen<'_, V>) -> Result<V> {
    match value {
        Seen::Resident(value) => Ok(value.clone()),
        Seen::Stored(bytes) => Bincode::decode(bytes),
    }
}
