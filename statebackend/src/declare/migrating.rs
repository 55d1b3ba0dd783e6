//! Declaring states whose values may be stored as older types: the kinds of [`StateDeclarations`], with a migration.

use types::{Result, Shape};

use super::{ExpiringDeclarations, StateDeclarations};
use crate::{
    Data,
    handle::{Aggregate, AggregatingState, Expiring, ListState, MapState, ReducingState, ValueState},
    migration::{Migration, check_versions},
};

/// Declares a state of `T`s that may be stored as older types. Made by [`StateDeclarations::migrating`].
pub struct MigratingDeclarations<'a, T> {
    states: &'a mut StateDeclarations,
    migration: Migration<T>,
}

/// The same with a time to live. Made by [`ExpiringDeclarations::migrating`].
pub struct MigratingExpiringDeclarations<'a, T> {
    states: ExpiringDeclarations<'a>,
    migration: Migration<T>,
}

impl StateDeclarations {
    /// Declares a state whose values (elements, values of entries, accumulators) may be stored as the type that `step` takes:
    /// at a restore it is called with each of them, in no order, before any record comes. Its error ends the start.
    ///
    /// It must make the same of the same whenever it is called: until a checkpoint holds what it made, each restore calls it again.
    pub fn migrating<O: Data, T: Data>(
        &mut self,
        step: impl Fn(O) -> Result<T> + Send + Sync + 'static,
    ) -> MigratingDeclarations<'_, T> {
        self.migrating_by(Migration::from(step))
    }

    /// As [`migrating`](Self::migrating), by a migration that is made already.
    pub fn migrating_by<T: Data>(&mut self, migration: Migration<T>) -> MigratingDeclarations<'_, T> {
        MigratingDeclarations { states: self, migration }
    }

    /// Gives the state that was declared last its migration.
    fn migrate_last<T: Data>(&mut self, migration: Migration<T>) {
        let Some(declared) = self.states.last_mut() else { return };
        let older = migration.into_older();
        let shapes: Vec<Shape> = older.iter().map(|version| version.shape.clone()).collect();
        let checked = check_versions(&declared.spec.shape, &shapes);
        let checked = checked.map_err(|error| error.context(format!("state {:?}", declared.spec.name)));
        declared.older = older.into();
        self.check(checked);
    }
}

impl ExpiringDeclarations<'_> {
    /// As [`StateDeclarations::migrating`]. A value that was stored with a deadline in the same time keeps it.
    pub fn migrating<O: Data, T: Data>(
        &mut self,
        step: impl Fn(O) -> Result<T> + Send + Sync + 'static,
    ) -> MigratingExpiringDeclarations<'_, T> {
        let states = ExpiringDeclarations { states: &mut *self.states, ttl: self.ttl };
        MigratingExpiringDeclarations { states, migration: Migration::from(step) }
    }
}

impl<'a, T: Data> MigratingDeclarations<'a, T> {
    /// One more step, to the type that `step` makes: values may be stored as any of the types before it.
    #[must_use]
    pub fn then<N: Data>(
        self,
        step: impl Fn(T) -> Result<N> + Send + Sync + 'static,
    ) -> MigratingDeclarations<'a, N> {
        MigratingDeclarations { states: self.states, migration: self.migration.then(step) }
    }

    /// One value per key.
    pub fn value(self, name: &str) -> ValueState<T> {
        self.declare(|states| states.value(name))
    }

    /// A list per key.
    pub fn list(self, name: &str) -> ListState<T> {
        self.declare(|states| states.list(name))
    }

    /// A map per key. `K` must be orderable, and is what it was when the map was stored.
    pub fn map<K: Data>(self, name: &str) -> MapState<K, T> {
        self.declare(|states| states.map(name))
    }

    /// One value per key that elements of its type are reduced to.
    pub fn reducing(self, name: &str, reduce: fn(T, T) -> T) -> ReducingState<T> {
        self.declare(|states| states.reducing(name, reduce))
    }

    /// One accumulator per key, which is what is migrated.
    pub fn aggregating<A: Aggregate<Accumulator = T>>(self, name: &str, aggregate: A) -> AggregatingState<A> {
        self.declare(|states| states.aggregating(name, aggregate))
    }

    fn declare<H>(self, declare: impl FnOnce(&mut StateDeclarations) -> H) -> H {
        let handle = declare(self.states);
        self.states.migrate_last(self.migration);
        handle
    }
}

impl<'a, T: Data> MigratingExpiringDeclarations<'a, T> {
    /// As [`MigratingDeclarations::then`].
    #[must_use]
    pub fn then<N: Data>(
        self,
        step: impl Fn(T) -> Result<N> + Send + Sync + 'static,
    ) -> MigratingExpiringDeclarations<'a, N> {
        MigratingExpiringDeclarations { states: self.states, migration: self.migration.then(step) }
    }

    /// One value per key.
    pub fn value(self, name: &str) -> Expiring<ValueState<T>> {
        self.declare(|states| states.value(name))
    }

    /// A list per key, each of whose elements expires by itself.
    pub fn list(self, name: &str) -> Expiring<ListState<T>> {
        self.declare(|states| states.list(name))
    }

    /// A map per key, each of whose entries expires by itself. `K` must be orderable, and is what it was when it was stored.
    pub fn map<K: Data>(self, name: &str) -> Expiring<MapState<K, T>> {
        self.declare(|states| states.map(name))
    }

    /// One value per key that elements of its type are reduced to.
    pub fn reducing(self, name: &str, reduce: fn(T, T) -> T) -> Expiring<ReducingState<T>> {
        self.declare(|states| states.reducing(name, reduce))
    }

    /// One accumulator per key, which is what is migrated.
    pub fn aggregating<A: Aggregate<Accumulator = T>>(
        self,
        name: &str,
        aggregate: A,
    ) -> Expiring<AggregatingState<A>> {
        self.declare(|states| states.aggregating(name, aggregate))
    }

    fn declare<H>(mut self, declare: impl FnOnce(&mut ExpiringDeclarations<'a>) -> H) -> H {
        let handle = declare(&mut self.states);
        self.states.states.migrate_last(self.migration);
        handle
    }
}
