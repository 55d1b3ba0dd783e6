//! The handle of a map state.

use types::{KeyBytes, Result, ordered};

use super::{KeyedContext, handle};
use crate::{Data, key::KeyRef, table::MapTable};

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
    /// `InvalidJob` if `map_key` cannot be ordered.
    pub fn get(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<Option<V>> {
        self.at(ctx, map_key, |table, key, sub| table.get(key, sub).cloned())
    }

    /// Whether there is a value under `map_key`.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered.
    pub fn contains(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<bool> {
        self.at(ctx, map_key, |table, key, sub| table.get(key, sub).is_some())
    }

    /// Puts a value under `map_key` and gives back the one before.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered.
    pub fn put(&self, ctx: &mut impl KeyedContext, map_key: &K, value: V) -> Result<Option<V>> {
        self.update(ctx, map_key, |place| place.replace(value))
    }

    /// Lets `change` put, replace or remove the value under `map_key`. Counts as a change whatever it does.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered.
    pub fn update<R>(
        &self,
        ctx: &mut impl KeyedContext,
        map_key: &K,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R> {
        self.at(ctx, map_key, |table, key, sub| table.update(key, sub, change))
    }

    /// Removes the value under `map_key` and gives it back.
    ///
    /// # Errors
    /// `InvalidJob` if `map_key` cannot be ordered.
    pub fn remove(&self, ctx: &mut impl KeyedContext, map_key: &K) -> Result<Option<V>> {
        self.at(ctx, map_key, MapTable::remove)
    }

    /// Calls `read` with each entry, in the order of the map keys.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`.
    pub fn for_each(&self, ctx: &mut impl KeyedContext, mut read: impl FnMut(K, &V)) -> Result<()> {
        let (key, state) = ctx.keyed();
        for (sub, value) in state.map_table(*self).iter(key) {
            read(ordered::decode(sub)?, value);
        }
        Ok(())
    }

    /// Copies of all entries, in the order of the map keys.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`.
    pub fn entries(&self, ctx: &mut impl KeyedContext) -> Result<Vec<(K, V)>> {
        let (key, state) = ctx.keyed();
        state.map_table(*self).iter(key).map(owned).collect()
    }

    /// A copy of the entry with the least map key.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`.
    pub fn first(&self, ctx: &mut impl KeyedContext) -> Result<Option<(K, V)>> {
        let (key, state) = ctx.keyed();
        state.map_table(*self).iter(key).next().map(owned).transpose()
    }

    /// A copy of the entry with the greatest map key.
    ///
    /// # Errors
    /// `Corrupt` if a stored map key is not a `K`.
    pub fn last(&self, ctx: &mut impl KeyedContext) -> Result<Option<(K, V)>> {
        let (key, state) = ctx.keyed();
        state.map_table(*self).iter(key).next_back().map(owned).transpose()
    }

    /// How many entries there are.
    ///
    /// # Errors
    /// None while all state is in memory.
    pub fn len(&self, ctx: &mut impl KeyedContext) -> Result<usize> {
        let (key, state) = ctx.keyed();
        Ok(state.map_table(*self).len(key))
    }

    /// Whether there are no entries.
    ///
    /// # Errors
    /// None while all state is in memory.
    pub fn is_empty(&self, ctx: &mut impl KeyedContext) -> Result<bool> {
        self.len(ctx).map(|len| len == 0)
    }

    /// Removes all entries, in constant time.
    ///
    /// # Errors
    /// None while all state is in memory.
    pub fn clear(&self, ctx: &mut impl KeyedContext) -> Result<()> {
        let (key, state) = ctx.keyed();
        state.map_table(*self).clear(key);
        Ok(())
    }

    /// Runs `work` with the ordered bytes of `map_key`.
    fn at<R>(
        &self,
        ctx: &mut impl KeyedContext,
        map_key: &K,
        work: impl FnOnce(&mut MapTable<V>, KeyRef<'_>, &[u8]) -> R,
    ) -> Result<R> {
        let (key, state) = ctx.keyed();
        let mut sub = std::mem::take(&mut state.scratch);
        sub.clear();
        let encoded = ordered::encode_into(map_key, &mut sub);
        let result = encoded.map(|()| work(state.map_table(*self), key, &sub));
        state.scratch = sub;
        result
    }
}

fn owned<K: Data, V: Clone>((sub, value): (&KeyBytes, &V)) -> Result<(K, V)> {
    Ok((ordered::decode(sub)?, value.clone()))
}
