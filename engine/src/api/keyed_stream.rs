//! [`KeyedStream`]: a stream whose records have a key each. Everything here keeps state per key, under a uid; all but
//! `process` are one operator, [`Update`], around different functions of (state, record).

use std::{marker::PhantomData, ops::AddAssign, sync::Arc};

use statebackend::KeyRef;
use types::{Result, ordered};

use super::{
    data::{Data, Key},
    declare::Keyed,
    function::Collector,
    process::ProcessFunction,
    stream::{Owned, Stream},
};
use crate::operators::{
    operator::{Operator, RuntimeContext},
    update::{Update, declare},
};

/// Records of type `T` that have a key of type `K` each.
///
/// The results of rolling aggregates carry the event time of the record that changed them, one result for each record.
#[must_use = "a keyed stream does nothing until an operator reads it"]
pub struct KeyedStream<K, T> {
    records: Stream<T>,
    key: PhantomData<fn() -> K>,
}

impl<K, T> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        Self { records: self.records.clone(), key: PhantomData }
    }
}

impl<K: Key, T: Data> KeyedStream<K, T> {
    pub(crate) fn new(records: Stream<T>) -> Self {
        Self { records, key: PhantomData }
    }

    /// Folds each key's records into a value that begins as `init`; emits key and value after each.
    pub fn fold<A: Data + Sync>(
        self,
        uid: &str,
        init: A,
        fold: impl Fn(&mut A, T) + Send + Sync + 'static,
    ) -> Stream<(K, A)> {
        self.rolling(uid, "fold", move |value, record| {
            fold(value.get_or_insert_with(|| init.clone()), record)
        })
    }

    /// Counts each key's records; emits key and count after each.
    pub fn count(self, uid: &str) -> Stream<(K, u64)> {
        self.rolling(uid, "count", |count, _| *count.get_or_insert(0) += 1)
    }

    /// Adds up what `of` finds in each key's records; emits key and sum after each.
    pub fn sum<A: Data + AddAssign>(
        self,
        uid: &str,
        of: impl Fn(&T) -> A + Send + Sync + 'static,
    ) -> Stream<(K, A)> {
        self.rolling(uid, "sum", move |sum, record| match sum {
            Some(sum) => *sum += of(&record),
            None => *sum = Some(of(&record)),
        })
    }

    /// The least of what `of` finds in each key's records; emits key and minimum after each.
    pub fn min<A: Data + PartialOrd>(
        self,
        uid: &str,
        of: impl Fn(&T) -> A + Send + Sync + 'static,
    ) -> Stream<(K, A)> {
        self.rolling(uid, "min", move |least, record| replace_if(least, of(&record), |new, old| new < old))
    }

    /// The greatest of what `of` finds in each key's records; emits key and maximum after each.
    pub fn max<A: Data + PartialOrd>(
        self,
        uid: &str,
        of: impl Fn(&T) -> A + Send + Sync + 'static,
    ) -> Stream<(K, A)> {
        self.rolling(uid, "max", move |most, record| replace_if(most, of(&record), |new, old| new > old))
    }

    /// Each key's record with the least value of `by`, the first of equals; emitted after each record.
    pub fn min_by<A: PartialOrd>(self, uid: &str, by: impl Fn(&T) -> A + Send + Sync + 'static) -> Stream<T> {
        self.extreme(uid, "min-by", move |new, old| by(new) < by(old))
    }

    /// Each key's record with the greatest value of `by`, the first of equals; emitted after each record.
    pub fn max_by<A: PartialOrd>(self, uid: &str, by: impl Fn(&T) -> A + Send + Sync + 'static) -> Stream<T> {
        self.extreme(uid, "max-by", move |new, old| by(new) > by(old))
    }

    /// Joins each key's records, two at a time; emits the result after each.
    pub fn reduce(self, uid: &str, reduce: impl Fn(T, T) -> T + Send + Sync + 'static) -> Stream<T> {
        self.update(uid, "reduce", move |state: &mut Option<T>, record, _, out| {
            let reduced = match state.take() {
                Some(earlier) => reduce(earlier, record),
                None => record,
            };
            out.emit(reduced.clone());
            *state = Some(reduced);
            Ok(())
        })
    }

    /// One record for each record, with a value of state per key; `None` removes it.
    pub fn map_with_state<S: Data, U: Data>(
        self,
        uid: &str,
        map: impl Fn(&mut Option<S>, T) -> U + Send + Sync + 'static,
    ) -> Stream<U> {
        self.update(uid, "map-with-state", move |state, record, _, out| {
            out.emit(map(state, record));
            Ok(())
        })
    }

    /// Any number of records for each record, with a value of state per key; `None` removes it.
    pub fn flat_map_with_state<S: Data, I>(
        self,
        uid: &str,
        map: impl Fn(&mut Option<S>, T) -> I + Send + Sync + 'static,
    ) -> Stream<I::Item>
    where
        I: IntoIterator,
        I::Item: Data,
    {
        self.update(uid, "flat-map-with-state", move |state, record, _, out| {
            out.extend(map(state, record));
            Ok(())
        })
    }

    /// A function with state of any kind, timers and side outputs.
    pub fn process<F>(self, uid: &str, function: F) -> Stream<F::Out>
    where
        F: ProcessFunction<Key = K, In = T>,
    {
        self.records.process_vertex(uid, function, Keyed::Yes)
    }

    /// Changes a value by each record; emits key and value after each. `change` always leaves a value.
    fn rolling<A: Data>(
        self,
        uid: &str,
        kind_name: &'static str,
        change: impl Fn(&mut Option<A>, T) + Send + Sync + 'static,
    ) -> Stream<(K, A)> {
        self.update(uid, kind_name, move |value, record, key, out| {
            change(value, record);
            if let Some(value) = value {
                out.emit((read_back(key)?, value.clone()));
            }
            Ok(())
        })
    }

    fn extreme(
        self,
        uid: &str,
        kind_name: &'static str,
        wins: impl Fn(&T, &T) -> bool + Send + Sync + 'static,
    ) -> Stream<T> {
        self.update(uid, kind_name, move |best: &mut Option<T>, record, _, out| {
            replace_if(best, record, &wins);
            out.extend(best.clone());
            Ok(())
        })
    }

    fn update<S, U, F>(self, uid: &str, kind_name: &'static str, update: F) -> Stream<U>
    where
        S: Data,
        U: Data,
        F: Fn(&mut Option<S>, T, KeyRef<'_>, &mut Collector<'_, U>) -> Result<()> + Send + Sync + 'static,
    {
        let owned = declare::<K, S>().map(|(declared, _)| Owned::keyed(&declared));
        let update = Arc::new(update);
        let make = move |context: &RuntimeContext| {
            let (declared, value) = declare::<K, S>()?;
            let operator: Update<T, U, S, F> = Update::new(Arc::clone(&update), declared, value, context);
            Ok(Box::new(operator) as Box<dyn Operator>)
        };
        self.records.then_owning(uid, kind_name, owned, make)
    }
}

/// The key as its type reads it.
#[inline]
fn read_back<K: Key>(key: KeyRef<'_>) -> Result<K> {
    ordered::decode(key.bytes)
        .map_err(|error| error.context("the key type does not read back what it writes"))
}

/// Puts `new` where there is nothing or something that it beats.
fn replace_if<A>(place: &mut Option<A>, new: A, wins: impl Fn(&A, &A) -> bool) {
    if place.as_ref().is_none_or(|old| wins(&new, old)) {
        *place = Some(new);
    }
}
