//! What a process function declares before its first record: keyed state, operator state, side outputs.
//! A handle can be made here alone, so that what was not declared cannot be used.

use std::{any::TypeId, collections::BTreeMap, fmt, marker::PhantomData};

use checkpoint::manifest::Redistribution;
use statebackend::{
    Aggregate, AggregatingState, Declared, ExpiringDeclarations, ListState, MapState, ReducingState,
    StateDeclarations, Ttl, ValueState,
};
use types::{Error, Result, Uid};

use super::{
    data::Data,
    process::{Context, ProcessFunction},
    stream::Owned,
};
use crate::{
    graph::logical::SideOutputSpec,
    operators::{
        list_state::{ListSlot, Lists},
        side::{SideBuffer, SideBuffers},
    },
    record::BatchBuilder,
};

/// Names a side output and the type of its records; written once as a constant, used by the function that declares it
/// and by the stream that reads it.
///
/// ```
/// use tidegate_engine::prelude::*;
///
/// const LATE: OutputTag<String> = OutputTag::new("late");
/// ```
pub struct OutputTag<T> {
    name: &'static str,
    records: PhantomData<fn() -> T>,
}

impl<T> OutputTag<T> {
    /// The tag of the side output called `name`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, records: PhantomData }
    }

    /// The side output's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<T: Data> OutputTag<T> {
    pub(crate) fn spec(&self) -> SideOutputSpec {
        SideOutputSpec {
            name: self.name.to_owned(),
            type_id: TypeId::of::<T>(),
            type_name: std::any::type_name::<T>(),
        }
    }
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OutputTag<T> {}

impl<T> fmt::Debug for OutputTag<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutputTag({})", self.name)
    }
}

/// A declared side output: what [`Context::emit_to`](super::process::Context::emit_to) takes.
pub struct SideOutput<T> {
    pub(crate) index: usize,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for SideOutput<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SideOutput<T> {}

/// Whether the stream has a key: what a function may declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyed {
    Yes,
    No,
}

/// What `F` declares, and its handles.
pub(crate) fn declare<F: ProcessFunction>(keyed: Keyed) -> (F::State, Declarations) {
    let mut declarations = Declarations::default();
    if keyed == Keyed::Yes {
        declarations.keyed.key::<F::Key>();
    }
    (F::declare(&mut declarations), declarations)
}

/// Collects what a function declares. Order does not matter for snapshots; names do.
#[derive(Default)]
pub struct Declarations {
    keyed: StateDeclarations,
    lists: Lists,
    sides: Vec<SideOutputSpec>,
    side_buffers: SideBuffers,
    problems: Vec<String>,
}

/// Declarations without a mistake.
pub(crate) struct Finished {
    /// There on keyed streams.
    pub(crate) keyed: Option<Declared>,
    pub(crate) lists: Lists,
    pub(crate) sides: Vec<SideOutputSpec>,
    pub(crate) side_buffers: SideBuffers,
}

impl Finished {
    /// What the graph says of them.
    pub(crate) fn owned(self) -> Owned {
        let lists = self.lists.into_iter().map(|list| list.spec).collect();
        Owned { sides: self.sides, lists, ..self.keyed.as_ref().map(Owned::keyed).unwrap_or_default() }
    }
}

impl Declarations {
    /// One value for each key.
    pub fn value<T: Data>(&mut self, name: &str) -> ValueState<T> {
        self.keyed.value(name)
    }

    /// A list for each key.
    pub fn list<T: Data>(&mut self, name: &str) -> ListState<T> {
        self.keyed.list(name)
    }

    /// A map for each key, ordered by its keys.
    pub fn map<K: Data, V: Data>(&mut self, name: &str) -> MapState<K, V> {
        self.keyed.map(name)
    }

    /// One value for each key that elements of its type are reduced to: what there was first, the new one second.
    pub fn reducing<T: Data>(&mut self, name: &str, reduce: fn(T, T) -> T) -> ReducingState<T> {
        self.keyed.reducing(name, reduce)
    }

    /// One accumulator for each key, which values are added to.
    pub fn aggregating<A: Aggregate>(&mut self, name: &str, aggregate: A) -> AggregatingState<A> {
        self.keyed.aggregating(name, aggregate)
    }

    /// Keyed states whose values, elements or entries live so long: `states.expiring(ttl).value::<u64>("seen")`.
    pub fn expiring(&mut self, ttl: Ttl) -> ExpiringDeclarations<'_> {
        self.keyed.expiring(ttl)
    }

    /// All kinds of keyed state, with their options.
    pub fn keyed(&mut self) -> &mut StateDeclarations {
        &mut self.keyed
    }

    /// A list that belongs to the subtask and not to a key. At another parallelism its elements are dealt out, each to
    /// one subtask.
    pub fn operator_list<T: Data>(&mut self, name: &str) -> OperatorListState<T> {
        OperatorListState::at(self.add(ListSlot::list::<T>(name, Redistribution::Split)))
    }

    /// Like [`operator_list`](Self::operator_list), but after every restore each subtask gets the elements of all.
    pub fn operator_union_list<T: Data>(&mut self, name: &str) -> OperatorListState<T> {
        OperatorListState::at(self.add(ListSlot::list::<T>(name, Redistribution::Union)))
    }

    /// A map that belongs to the operator: every subtask has a copy, and all copies must be alike at every barrier. A checkpoint
    /// in exactly-once mode compares them, and fails the attempt if they are not. So change it by records alone, which every
    /// subtask gets (the job is refused without `.broadcast()` before the operator), and so that the order of those that come
    /// from several subtasks does not matter. Copies are compared as they are stored: keep no `HashMap` or `HashSet` in the
    /// values, whose order is another in each.
    ///
    /// A restore gives each subtask a copy, at any parallelism; in at-least-once mode that of one subtask, whose records after
    /// the barrier come again.
    pub fn operator_broadcast<K: Data + Ord, V: Data>(&mut self, name: &str) -> BroadcastState<K, V> {
        BroadcastState::at(self.add(ListSlot::broadcast::<K, V>(name)))
    }

    /// A side output.
    pub fn side_output<T: Data>(&mut self, tag: OutputTag<T>) -> SideOutput<T> {
        if self.sides.iter().any(|side| side.name == tag.name) {
            self.problems.push(format!("side output {:?} is declared twice", tag.name));
        }
        self.sides.push(tag.spec());
        self.side_buffers.push(Box::new(BatchBuilder::<T>::default()) as Box<dyn SideBuffer>);
        SideOutput { index: self.sides.len() - 1, records: PhantomData }
    }

    /// # Errors
    /// `InvalidJob` with all mistakes.
    pub(crate) fn finish(self, keyed: Keyed) -> Result<Finished> {
        let mut problems = self.problems;
        let declared = self.keyed.finish().unwrap_or_else(|error| {
            problems.push(error.to_string());
            Declared::nothing()
        });
        let states = declared.descriptions();
        if let (Keyed::No, Some(state)) = (keyed, states.first()) {
            problems.push(format!("state {:?} belongs to a key: call key_by before process", state.name));
        }
        if !problems.is_empty() {
            return Err(Error::invalid_job(problems.join("; ")));
        }
        Ok(Finished {
            keyed: (keyed == Keyed::Yes).then_some(declared),
            lists: self.lists,
            sides: self.sides,
            side_buffers: self.side_buffers,
        })
    }

    /// Notes a mistake, for [`finish`](Self::finish).
    pub(super) fn problem(&mut self, error: &Error) {
        self.problems.push(error.message().to_owned());
    }

    pub(super) fn add(&mut self, slot: ListSlot) -> usize {
        let name = &slot.spec.name;
        if Uid::new(name).is_err() {
            self.problems
                .push(format!("operator state {name:?}: use 1 to 64 of the characters a-z, 0-9 and -"));
        }
        if self.lists.iter().any(|list| list.spec.name == *name) {
            self.problems.push(format!("operator state {name:?} is declared twice"));
        }
        self.lists.push(slot);
        self.lists.len() - 1
    }
}

/// A list of the subtask's own, in the function's hands through its context.
///
/// It lies in memory and is written whole at every checkpoint: keep it small.
pub struct OperatorListState<T> {
    index: usize,
    elements: PhantomData<fn() -> T>,
}

impl<T> OperatorListState<T> {
    pub(super) fn at(index: usize) -> Self {
        Self { index, elements: PhantomData }
    }
}

impl<T> Clone for OperatorListState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OperatorListState<T> {}

impl<T: Data> OperatorListState<T> {
    /// The list, to read and to change.
    pub fn get<'a, F: ProcessFunction>(&self, context: &'a mut Context<'_, F>) -> &'a mut Vec<T> {
        context.lists_mut()[self.index].elements_mut()
    }
}

/// A map of which every subtask has a copy, in the function's hands through its context.
///
/// It lies in memory and is written whole at every checkpoint: keep it small.
pub struct BroadcastState<K, V> {
    index: usize,
    entries: PhantomData<fn() -> (K, V)>,
}

impl<K, V> BroadcastState<K, V> {
    pub(super) fn at(index: usize) -> Self {
        Self { index, entries: PhantomData }
    }
}

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for BroadcastState<K, V> {}

impl<K: Data + Ord, V: Data> BroadcastState<K, V> {
    /// The map, to read.
    #[must_use]
    pub fn get<'a, F: ProcessFunction>(&self, context: &'a Context<'_, F>) -> &'a BTreeMap<K, V> {
        context.lists()[self.index].elements()
    }

    /// The map, to change: in every subtask alike.
    pub fn get_mut<'a, F: ProcessFunction>(&self, context: &'a mut Context<'_, F>) -> &'a mut BTreeMap<K, V> {
        context.lists_mut()[self.index].elements_mut()
    }
}
