//! Declaring states whose values a snapshot may hold as older types: the kinds of [`Declarations`], with a migration.

use checkpoint::manifest::Redistribution;
use statebackend::{
    Aggregate, AggregatingState, ListState, MapState, Migration, ReducingState, ValueState, check_versions,
};
use types::Result;

use super::{
    data::Data,
    declare::{BroadcastState, Declarations, OperatorListState},
};
use crate::operators::list_state::ListSlot;

/// Declares a state of `T`s that may be stored as older types. Made by [`Declarations::migrating`].
pub struct Migrating<'a, T> {
    states: &'a mut Declarations,
    migration: Migration<T>,
}

impl Declarations {
    /// Declares a state whose type has changed. A snapshot may hold it as the type that `step` takes, or as the one that it
    /// makes, which is what is declared; what else it may hold is refused before the job starts. A state with a time to live:
    /// `states.expiring(ttl).migrating(...)`.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use tidegate_engine::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct AccountV1 { euros: u32 }
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct AccountV2 { cents: u64 }
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Account { cents: u64, currency: String }
    /// # fn declare(states: &mut Declarations) -> ValueState<Account> {
    /// states
    ///     .migrating(|old: AccountV1| Ok(AccountV2 { cents: u64::from(old.euros) * 100 }))
    ///     .then(|old: AccountV2| Ok(Account { cents: old.cents, currency: "EUR".to_owned() }))
    ///     .value("account")
    /// # }
    /// ```
    ///
    /// The older types are whatever has the fields, by name and type, that were stored: their own names may be others. `step` is
    /// called at the restore with each value (element, value of an entry, accumulator), in no order, before any record comes.
    /// It must make the same of the same whenever it is called, and do nothing else: until a checkpoint holds what it made, each
    /// restore calls it again. Its error ends the start, and the snapshot is as it was. Keys and map keys cannot be migrated.
    pub fn migrating<O: Data, T: Data>(
        &mut self,
        step: impl Fn(O) -> Result<T> + Send + Sync + 'static,
    ) -> Migrating<'_, T> {
        Migrating { states: self, migration: Migration::from(step) }
    }
}

impl<'a, T: Data> Migrating<'a, T> {
    /// One more step, to the type that `step` makes: a snapshot may hold any of the types before it.
    #[must_use]
    pub fn then<N: Data>(self, step: impl Fn(T) -> Result<N> + Send + Sync + 'static) -> Migrating<'a, N> {
        Migrating { states: self.states, migration: self.migration.then(step) }
    }

    /// As [`Declarations::value`].
    pub fn value(self, name: &str) -> ValueState<T> {
        self.states.keyed().migrating_by(self.migration).value(name)
    }

    /// As [`Declarations::list`].
    pub fn list(self, name: &str) -> ListState<T> {
        self.states.keyed().migrating_by(self.migration).list(name)
    }

    /// As [`Declarations::map`]. Its keys are of the type that they were of when it was stored.
    pub fn map<K: Data>(self, name: &str) -> MapState<K, T> {
        self.states.keyed().migrating_by(self.migration).map(name)
    }

    /// As [`Declarations::reducing`].
    pub fn reducing(self, name: &str, reduce: fn(T, T) -> T) -> ReducingState<T> {
        self.states.keyed().migrating_by(self.migration).reducing(name, reduce)
    }

    /// As [`Declarations::aggregating`]. The accumulator is what is migrated.
    pub fn aggregating<A: Aggregate<Accumulator = T>>(self, name: &str, aggregate: A) -> AggregatingState<A> {
        self.states.keyed().migrating_by(self.migration).aggregating(name, aggregate)
    }

    /// As [`Declarations::operator_list`].
    pub fn operator_list(self, name: &str) -> OperatorListState<T> {
        self.list_of(name, Redistribution::Split)
    }

    /// As [`Declarations::operator_union_list`].
    pub fn operator_union_list(self, name: &str) -> OperatorListState<T> {
        self.list_of(name, Redistribution::Union)
    }

    /// As [`Declarations::operator_broadcast`]. Its keys are of the type that they were of when it was stored.
    pub fn operator_broadcast<K: Data + Ord>(self, name: &str) -> BroadcastState<K, T> {
        BroadcastState::at(add(self.states, ListSlot::migrating_broadcast::<K, T>(name, self.migration)))
    }

    fn list_of(self, name: &str, redistribution: Redistribution) -> OperatorListState<T> {
        OperatorListState::at(add(self.states, ListSlot::migrating(name, redistribution, self.migration)))
    }
}

fn add(states: &mut Declarations, slot: ListSlot) -> usize {
    if let Err(error) = check_versions(&slot.spec.shape, &slot.spec.older) {
        states.problem(&error.context(format!("operator state {:?}", slot.spec.name)));
    }
    states.add(slot)
}
