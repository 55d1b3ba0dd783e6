//! A map whose entries have a time to live each.

use std::ops::ControlFlow;

use types::{Bincode, Codec, Result};

use super::Expiring;
use crate::{
    Data,
    expiry::{Stamped, deadline_of},
    handle::{KeyedContext, MapState},
    store::Order,
    table::Seen,
};

impl<K: Data, V: Data> Expiring<MapState<K, V>> {
    /// A copy of the value under `map_key`.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table. `User` if reading refreshes it and the
    /// record has no event time.
    pub fn get(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<Option<V>> {
        let moment = self.ttl.look(ctx);
        let found = self.stored.get(ctx, map_key)?.filter(|value| moment.shows(value));
        if let Some(stamped) = &found
            && self.ttl.refreshed_by_reads
        {
            let deadline = moment.deadline()?;
            if stamped.deadline < deadline {
                self.stored.put(ctx, map_key, Stamped { deadline, value: stamped.value.clone() })?;
            }
        }
        Ok(found.map(|stamped| stamped.value))
    }

    /// Whether there is a value under `map_key`. Counts as reading it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<bool> {
        Ok(self.get(ctx, map_key)?.is_some())
    }

    /// Puts a value under `map_key` and gives back the one before.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table. `User` if the record has no event time.
    pub fn put(&self, ctx: &mut impl KeyedContext, map_key: &K, value: V) -> Result<Option<V>> {
        self.update(ctx, map_key, |place| place.replace(value))
    }

    /// Lets `change` put, replace or remove the value under `map_key`. Counts as writing whatever it does. A record that comes
    /// late does not shorten the life of what lives.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table. `User` if the record has no event time.
    pub fn update<R>(
        &self,
        ctx: &mut impl KeyedContext,
        map_key: &K,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R> {
        let moment = self.ttl.look(ctx);
        let deadline = moment.deadline()?;
        self.stored.update(ctx, map_key, |place| Stamped::update(place, moment, deadline, change))
    }

    /// Removes the value under `map_key` and gives it back.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered. Those of the store behind the table.
    pub fn remove(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<Option<V>> {
        let moment = self.ttl.look(ctx);
        let removed = self.stored.remove(ctx, map_key)?;
        Ok(removed.filter(|value| moment.shows(value)).map(|stamped| stamped.value))
    }

    /// Calls `read` with each entry, in the order of the map keys. Refreshes none of them.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn for_each(&self, ctx: &mut impl KeyedContext, mut read: impl FnMut(K, &V)) -> Result<()> {
        self.visit(ctx, Order::Ascending, |map_key, value| {
            read(map_key, value);
            ControlFlow::Continue(())
        })
    }

    /// Copies of all entries, in the order of the map keys. Refreshes none of them.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn entries(&self, ctx: &mut impl KeyedContext) -> Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.for_each(ctx, |map_key, value| entries.push((map_key, value.clone())))?;
        Ok(entries)
    }

    /// A copy of the entry with the least map key. Does not refresh it.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn first(&self, ctx: &mut impl KeyedContext) -> Result<Option<(K, V)>> {
        self.next(ctx, Order::Ascending)
    }

    /// A copy of the entry with the greatest map key. Does not refresh it.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`. Those of the store behind the table.
    pub fn last(&self, ctx: &mut impl KeyedContext) -> Result<Option<(K, V)>> {
        self.next(ctx, Order::Descending)
    }

    /// How many entries there are, counted one by one.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn len(&self, ctx: &mut impl KeyedContext) -> Result<usize> {
        let mut len = 0;
        self.for_each(ctx, |_, _| len += 1)?;
        Ok(len)
    }

    /// Whether there are no entries.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn is_empty(&self, ctx: &mut impl KeyedContext) -> Result<bool> {
        Ok(self.first(ctx)?.is_none())
    }

    /// Removes all entries, in constant time.
    ///
    /// # Errors
    /// Those of the store behind the table.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        self.stored.clear(ctx)
    }

    /// Calls `visit` with each entry that lives, in `order`, until it breaks.
    fn visit(
        &self,
        ctx: &mut impl KeyedContext,
        order: Order,
        mut visit: impl FnMut(K, &V) -> ControlFlow<()>,
    ) -> Result<()> {
        let moment = self.ttl.look(ctx);
        self.stored.visit(ctx, order, |map_key, value| {
            Ok(match value {
                Seen::Resident(stamped) if moment.shows(stamped) => visit(map_key, &stamped.value),
                Seen::Stored(bytes) if deadline_of(bytes)? > moment.now => {
                    visit(map_key, &Bincode::decode::<Stamped<V>>(bytes)?.value)
                }
                _ => ControlFlow::Continue(()),
            })
        })
    }

    fn next(&self, ctx: &mut impl KeyedContext, order: Order) -> Result<Option<(K, V)>> {
        let mut first = None;
        self.visit(ctx, order, |map_key, value| {
            first = Some((map_key, value.clone()));
            ControlFlow::Break(())
        })?;
        Ok(first)
    }
}
