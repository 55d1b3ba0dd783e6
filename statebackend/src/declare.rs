//! Declaring states: the engine makes a [`StateDeclarations`], the user's `declare` function fills it, and what comes
//! out, [`Declared`], is what tables are made of and snapshots are checked against.
//!
//! Invariant: a handle can only be made here, so an undeclared state cannot be used.

mod migrating;

use std::sync::Arc;

pub use migrating::{MigratingDeclarations, MigratingExpiringDeclarations};
use types::{Bincode, Codec, Error, KeyGroupRange, Result, Shape, TimeDomain, Timestamp};

use crate::{
    Data,
    compatible::is_timers,
    expiry::{DEADLINE_LEN, Stamped, Ttl, deadline_of},
    handle::{Aggregate, AggregatingState, Expiring, ListState, MapState, ReducingState, ValueState},
    migration::{Migrations, Older},
    run::schema::Schema,
    table::{CachedTable, ListTable, MapTable, ValueTable},
};

/// The reserved state that holds event-time timers.
pub const EVENT_TIMERS: &str = "timers-event";
/// The reserved state that holds processing-time timers.
pub const PROCESSING_TIMERS: &str = "timers-processing";

/// The kinds of keyed state. The numbers are part of the run format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StateKind {
    /// One value per key.
    Value = 1,
    /// A list per key.
    List = 2,
    /// A map per key.
    Map = 3,
    /// A set of times per key.
    Timers = 4,
    /// One value per key, which elements of its type are reduced to.
    Reducing = 5,
    /// One accumulator per key.
    Aggregating = 6,
}

impl StateKind {
    const ALL: [Self; 6] =
        [Self::Value, Self::List, Self::Map, Self::Timers, Self::Reducing, Self::Aggregating];

    /// The kind with this number.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// The kind with this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether a key has one value of it, and nothing below the key.
    pub(crate) fn is_one_value(self) -> bool {
        matches!(self, Self::Value | Self::Reducing | Self::Aggregating)
    }

    /// Whether it can have a time to live.
    pub(crate) fn can_expire(self) -> bool {
        self != Self::Timers
    }

    /// The name, for messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::List => "list",
            Self::Map => "map",
            Self::Timers => "timers",
            Self::Reducing => "reducing",
            Self::Aggregating => "aggregating",
        }
    }
}

/// What is known about a state without its types: stands in every run and is compared at restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// The name, unique within its operator.
    pub name: String,
    /// The kind.
    pub kind: StateKind,
    /// In which time its values (elements, entries) expire, if they do. Then a deadline stands before each of them.
    pub expiry: Option<TimeDomain>,
    /// The id of the codec of its values; empty for timers.
    pub codec: String,
    /// The shape of its values (of a list's elements).
    pub shape: Shape,
    /// The shape of its map keys, for maps and timers.
    pub map_key: Option<Shape>,
}

impl StateSpec {
    pub(crate) fn timers(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: StateKind::Timers,
            expiry: None,
            codec: String::new(),
            shape: Shape::Unit,
            map_key: Some(Shape::I64),
        }
    }
}

/// What stands behind the name of a kind whose values expire.
const TTL: &str = " ttl";

impl StateSpec {
    /// Its kind and how it expires, for people and manifests: `map`, or `map, event-time ttl`.
    #[must_use]
    pub fn kind_text(&self) -> String {
        match self.expiry {
            None => self.kind.name().to_owned(),
            Some(domain) => format!("{}, {}{TTL}", self.kind.name(), domain.name()),
        }
    }

    /// Reads what [`kind_text`](Self::kind_text) wrote. `None` if there is no such kind.
    #[must_use]
    pub fn kind_of_text(text: &str) -> Option<(StateKind, Option<TimeDomain>)> {
        let Some((kind, expiry)) = text.split_once(", ") else {
            return Some((StateKind::from_name(text)?, None));
        };
        let domain = expiry.strip_suffix(TTL)?;
        let domain =
            [TimeDomain::EventTime, TimeDomain::ProcessingTime].into_iter().find(|it| it.name() == domain)?;
        StateKind::from_name(kind).filter(|kind| kind.can_expire()).map(|kind| (kind, Some(domain)))
    }

    /// An encoded value or element without the deadline that stands before it, if it has one.
    ///
    /// # Errors
    /// `Corrupt` if it should have one and is too short.
    pub fn without_deadline<'a>(&self, encoded: &'a [u8]) -> Result<&'a [u8]> {
        match self.expiry {
            None => Ok(encoded),
            Some(_) => deadline_of(encoded).map(|_| &encoded[DEADLINE_LEN..]),
        }
    }

    /// The deadline that stands before an encoded value or element, if it has one: it has expired once the clock of its key
    /// group has come as far.
    ///
    /// # Errors
    /// `Corrupt` if it should have one and is too short.
    pub fn deadline(&self, encoded: &[u8]) -> Result<Option<Timestamp>> {
        self.expiry.map(|_| deadline_of(encoded)).transpose()
    }
}

#[derive(Clone)]
pub(crate) struct Declaration {
    pub(crate) spec: Arc<StateSpec>,
    /// How long its values live, if they expire.
    pub(crate) ttl: Option<Ttl>,
    /// The types that its values may also be stored as, oldest first.
    pub(crate) older: Arc<[Older]>,
    pub(crate) make: fn(KeyGroupRange) -> Box<dyn CachedTable>,
}

/// Collects the states of one operator. Mistakes are kept and reported by [`finish`](Self::finish), so that declaring
/// reads as a list of names.
#[derive(Default)]
pub struct StateDeclarations {
    key: Option<Shape>,
    states: Vec<Declaration>,
    failure: Option<Error>,
}

impl StateDeclarations {
    /// The greatest length of a state's name in bytes.
    pub const MAX_NAME: usize = 64;
    /// The greatest number of states of one operator.
    pub const MAX_STATES: usize = 1024;

    /// None declared yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the keys of the stream look like: the engine's call.
    pub fn key<K: Data>(&mut self) {
        let shape = Shape::trace::<K>();
        self.check(shape.orderable().map_err(|error| error.context("the key of the stream")));
        self.key = Some(shape);
    }

    /// Declares one value per key.
    pub fn value<T: Data>(&mut self, name: &str) -> ValueState<T> {
        self.value_of_shape(name, Shape::trace::<T>(), StateKind::Value)
    }

    /// Declares one value per key, of a type whose shape is learned from a sample, too.
    pub fn value_with_sample<T: Data>(&mut self, name: &str, sample: &T) -> ValueState<T> {
        let shape = self.sampled(name, sample);
        self.value_of_shape(name, shape, StateKind::Value)
    }

    /// Declares one value per key that elements of its type are reduced to, in the order in which they are added: what there
    /// was first, the new one second.
    pub fn reducing<T: Data>(&mut self, name: &str, reduce: fn(T, T) -> T) -> ReducingState<T> {
        ReducingState::new(self.value_of_shape(name, Shape::trace::<T>(), StateKind::Reducing), reduce)
    }

    /// Declares one accumulator per key, which values are added to.
    pub fn aggregating<A: Aggregate>(&mut self, name: &str, aggregate: A) -> AggregatingState<A> {
        let shape = Shape::trace::<A::Accumulator>();
        AggregatingState::new(self.value_of_shape(name, shape, StateKind::Aggregating), aggregate)
    }

    fn value_of_shape<T: Data>(&mut self, name: &str, shape: Shape, kind: StateKind) -> ValueState<T> {
        let make: fn(KeyGroupRange) -> Box<dyn CachedTable> = |groups| Box::new(ValueTable::<T>::new(groups));
        ValueState::new(self.add(name, kind, None, shape, None, make))
    }

    /// Declares a list per key.
    pub fn list<T: Data>(&mut self, name: &str) -> ListState<T> {
        self.list_of_shape(name, Shape::trace::<T>())
    }

    /// Declares a list per key, of elements whose shape is learned from a sample, too.
    pub fn list_with_sample<T: Data>(&mut self, name: &str, sample: &T) -> ListState<T> {
        let shape = self.sampled(name, sample);
        self.list_of_shape(name, shape)
    }

    fn list_of_shape<T: Data>(&mut self, name: &str, shape: Shape) -> ListState<T> {
        let make: fn(KeyGroupRange) -> Box<dyn CachedTable> = |groups| Box::new(ListTable::<T>::new(groups));
        ListState::new(self.add(name, StateKind::List, None, shape, None, make))
    }

    /// Declares a map per key. `K` must be orderable.
    pub fn map<K: Data, V: Data>(&mut self, name: &str) -> MapState<K, V> {
        self.map_of_shape(name, Shape::trace::<V>())
    }

    /// Declares a map per key, of values whose shape is learned from a sample, too.
    pub fn map_with_sample<K: Data, V: Data>(&mut self, name: &str, sample: &V) -> MapState<K, V> {
        let shape = self.sampled(name, sample);
        self.map_of_shape(name, shape)
    }

    fn map_of_shape<K: Data, V: Data>(&mut self, name: &str, shape: Shape) -> MapState<K, V> {
        let map_key = self.map_key::<K>(name);
        let make: fn(KeyGroupRange) -> Box<dyn CachedTable> = |groups| Box::new(MapTable::<V>::new(groups));
        MapState::new(self.add(name, StateKind::Map, None, shape, Some(map_key), make))
    }

    fn map_key<K: Data>(&mut self, name: &str) -> Shape {
        let map_key = Shape::trace::<K>();
        let orderable = map_key.orderable();
        self.check(orderable.map_err(|error| error.context(format!("state {name:?}: its map key"))));
        map_key
    }

    /// Declares states whose values, elements or entries live so long after they were written.
    pub fn expiring(&mut self, ttl: Ttl) -> ExpiringDeclarations<'_> {
        let problem = (ttl.duration.as_millis() == 0).then(|| {
            let text = format!(
                "a ttl of {:?} lets state expire as it is written: times are in milliseconds",
                ttl.duration
            );
            Error::invalid_job(text).with_advice("give it one millisecond or more")
        });
        self.check(problem.map_or(Ok(()), Err));
        ExpiringDeclarations { states: self, ttl }
    }

    /// What was declared.
    ///
    /// # Errors
    /// `InvalidJob` for the first mistake: a bad or doubled name, a type that cannot be stored, an unorderable map key,
    /// types with so many fields in all (thousands) that no reader would take them.
    pub fn finish(self) -> Result<Declared> {
        if let Some(error) = self.failure {
            return Err(error);
        }
        let mut by_name: Vec<u16> = (0..self.states.len() as u16).collect();
        by_name.sort_by(|a, b| {
            self.states[usize::from(*a)].spec.name.cmp(&self.states[usize::from(*b)].spec.name)
        });
        let declared =
            Declared { key: self.key.map(Arc::new), states: self.states.into(), by_name: by_name.into() };
        let specs = declared.sorted().map(|(_, spec)| spec.clone());
        Schema::new(declared.key.clone(), specs).check_readable()?;
        Ok(declared)
    }

    fn sampled<T: Data>(&mut self, name: &str, sample: &T) -> Shape {
        let traced = Shape::trace::<T>();
        match Shape::trace_sample(sample).and_then(|sampled| traced.merge(&sampled)) {
            Ok(shape) => shape,
            Err(error) => {
                self.check(Err(error.context(format!("state {name:?}: its sample"))));
                traced
            }
        }
    }

    fn add(
        &mut self,
        name: &str,
        kind: StateKind,
        ttl: Option<Ttl>,
        shape: Shape,
        map_key: Option<Shape>,
        make: fn(KeyGroupRange) -> Box<dyn CachedTable>,
    ) -> u16 {
        self.check(self.check_name(name));
        self.check(shape.storable().map_err(|error| error.context(format!("state {name:?}"))));
        let (codec, expiry) = (Bincode::ID.to_owned(), ttl.map(|ttl| ttl.domain));
        let spec = Arc::new(StateSpec { name: name.to_owned(), kind, expiry, codec, shape, map_key });
        self.states.push(Declaration { spec, ttl, older: Arc::new([]), make });
        (self.states.len() - 1) as u16
    }

    fn check_name(&self, name: &str) -> Result<()> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || name.len() > Self::MAX_NAME || !name.bytes().all(allowed) {
            return Err(Error::invalid_job(format!(
                "state name {name:?} is not allowed: use 1 to {} of the characters a-z, 0-9, - and _",
                Self::MAX_NAME
            )));
        }
        if is_timers(name) {
            return Err(Error::invalid_job(format!("state name {name:?} is reserved: choose another one")));
        }
        if self.states.iter().any(|declared| declared.spec.name == name) {
            return Err(Error::invalid_job(format!(
                "state {name:?} is declared twice: give each its own name"
            )));
        }
        if self.states.len() >= Self::MAX_STATES {
            return Err(Error::invalid_job(format!("over {} states in one operator", Self::MAX_STATES)));
        }
        Ok(())
    }

    fn check(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }
}

/// Declares states with a time to live. Made by [`StateDeclarations::expiring`].
pub struct ExpiringDeclarations<'a> {
    states: &'a mut StateDeclarations,
    ttl: Ttl,
}

impl ExpiringDeclarations<'_> {
    /// One value per key.
    pub fn value<T: Data>(&mut self, name: &str) -> Expiring<ValueState<T>> {
        self.value_of_kind(name, StateKind::Value)
    }

    /// One value per key, of a type whose shape is learned from a sample, too.
    pub fn value_with_sample<T: Data>(&mut self, name: &str, sample: &T) -> Expiring<ValueState<T>> {
        let shape = self.states.sampled(name, sample);
        self.value_of_shape(name, shape, StateKind::Value)
    }

    /// A list per key, each of whose elements expires by itself.
    pub fn list<T: Data>(&mut self, name: &str) -> Expiring<ListState<T>> {
        self.list_of_shape(name, Shape::trace::<T>())
    }

    /// The same, of elements whose shape is learned from a sample, too.
    pub fn list_with_sample<T: Data>(&mut self, name: &str, sample: &T) -> Expiring<ListState<T>> {
        let shape = self.states.sampled(name, sample);
        self.list_of_shape(name, shape)
    }

    fn list_of_shape<T: Data>(&mut self, name: &str, shape: Shape) -> Expiring<ListState<T>> {
        let make: fn(KeyGroupRange) -> Box<dyn CachedTable> =
            |groups| Box::new(ListTable::<Stamped<T>>::expiring(groups, |item| item.deadline));
        let index = self.add(name, StateKind::List, shape, None, make);
        Expiring::new(ListState::new(index), self.ttl)
    }

    /// A map per key, each of whose entries expires by itself. `K` must be orderable.
    pub fn map<K: Data, V: Data>(&mut self, name: &str) -> Expiring<MapState<K, V>> {
        self.map_of_shape(name, Shape::trace::<V>())
    }

    /// The same, of values whose shape is learned from a sample, too.
    pub fn map_with_sample<K: Data, V: Data>(&mut self, name: &str, sample: &V) -> Expiring<MapState<K, V>> {
        let shape = self.states.sampled(name, sample);
        self.map_of_shape(name, shape)
    }

    fn map_of_shape<K: Data, V: Data>(&mut self, name: &str, shape: Shape) -> Expiring<MapState<K, V>> {
        let map_key = self.states.map_key::<K>(name);
        let make: fn(KeyGroupRange) -> Box<dyn CachedTable> =
            |groups| Box::new(MapTable::<Stamped<V>>::expiring(groups, |value| value.deadline));
        let index = self.add(name, StateKind::Map, shape, Some(map_key), make);
        Expiring::new(MapState::new(index), self.ttl)
    }

    /// One value per key that elements of its type are reduced to. It lives on with each one that is added.
    pub fn reducing<T: Data>(&mut self, name: &str, reduce: fn(T, T) -> T) -> Expiring<ReducingState<T>> {
        Expiring::new((self.value_of_kind(name, StateKind::Reducing), reduce), self.ttl)
    }

    /// One accumulator per key. It lives on with each value that is added.
    pub fn aggregating<A: Aggregate>(&mut self, name: &str, aggregate: A) -> Expiring<AggregatingState<A>> {
        Expiring::new((self.value_of_kind(name, StateKind::Aggregating), aggregate), self.ttl)
    }

    fn value_of_kind<T: Data>(&mut self, name: &str, kind: StateKind) -> Expiring<ValueState<T>> {
        self.value_of_shape(name, Shape::trace::<T>(), kind)
    }

    fn value_of_shape<T: Data>(
        &mut self,
        name: &str,
        shape: Shape,
        kind: StateKind,
    ) -> Expiring<ValueState<T>> {
        let make: fn(KeyGroupRange) -> Box<dyn CachedTable> =
            |groups| Box::new(ValueTable::<Stamped<T>>::expiring(groups, |value| value.deadline));
        let index = self.add(name, kind, shape, None, make);
        Expiring::new(ValueState::new(index), self.ttl)
    }

    fn add(
        &mut self,
        name: &str,
        kind: StateKind,
        shape: Shape,
        map_key: Option<Shape>,
        make: fn(KeyGroupRange) -> Box<dyn CachedTable>,
    ) -> u16 {
        self.states.add(name, kind, Some(self.ttl), shape, map_key, make)
    }
}

/// The states of an operator, checked. Cheap to clone: each subtask makes its tables of it.
#[derive(Clone)]
pub struct Declared {
    pub(crate) key: Option<Arc<Shape>>,
    pub(crate) states: Arc<[Declaration]>,
    /// Places in `states`, sorted by name.
    pub(crate) by_name: Arc<[u16]>,
}

impl Declared {
    /// No states: only timers can be kept.
    #[must_use]
    pub fn nothing() -> Self {
        Self { key: None, states: Arc::new([]), by_name: Arc::new([]) }
    }

    /// The declared states, sorted by name.
    #[must_use]
    pub fn descriptions(&self) -> Vec<StateSpec> {
        self.sorted().map(|(_, spec)| StateSpec::clone(spec)).collect()
    }

    /// The shapes that the states may also be stored in: what a snapshot is checked against besides.
    #[must_use]
    pub fn migrations(&self) -> Migrations {
        let shapes = |state: &Declaration| state.older.iter().map(|older| older.shape.clone()).collect();
        Migrations::of(self.states.iter().map(|state| (state.spec.name.clone(), shapes(state))))
    }

    /// The shape of the stream's keys, if the engine said it.
    #[must_use]
    pub fn key_shape(&self) -> Option<&Shape> {
        self.key.as_deref()
    }

    /// Whether any state expires, in this time.
    pub(crate) fn expires(&self, domain: TimeDomain) -> bool {
        self.states.iter().any(|state| state.spec.expiry == Some(domain))
    }

    /// The states with their places in the order of declaration, sorted by name.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (u16, &Arc<StateSpec>)> {
        self.by_name.iter().map(|&index| (index, &self.states[usize::from(index)].spec))
    }
}
