//! One state of one operator of a snapshot: found by name, read in order over all subtasks, its bytes as values.

use std::collections::BTreeSet;

use checkpoint::manifest::{ListPart, OperatorSnapshot, Redistribution, SubtaskSnapshot};
use env::{Env, Store};
use statebackend::{
    LiveBatch, RunSet, Scan, Selection, StateKind, StateSpec,
    declare::{EVENT_TIMERS, PROCESSING_TIMERS},
    is_timers,
};
use types::{Error, ExpiryClocks, Result, Run, Shape, ShapedValue, Timestamp};

/// A state that was found.
pub(crate) enum Found<'a> {
    /// A keyed state of this kind.
    Keyed(StateKind),
    /// An operator list state: the part of each subtask that has one.
    List(Vec<(&'a SubtaskSnapshot, &'a ListPart)>),
}

/// The state of this name.
///
/// # Errors
/// `InvalidJob` with those that there are, `IncompatibleState` if the snapshot names a kind that this version does not
/// know.
pub(crate) fn find<'a>(operator: &'a OperatorSnapshot, name: &str, place: &str) -> Result<Found<'a>> {
    if let Some(kind) = keyed_kind(operator, name)? {
        return Ok(Found::Keyed(kind));
    }
    let parts = list_parts(operator, name);
    if parts.is_empty() {
        let (uid, names) = (&operator.uid, names(operator));
        let there = match names.is_empty() {
            true => "it keeps no state".to_owned(),
            false => format!("there are {}", names.into_iter().collect::<Vec<_>>().join(", ")),
        };
        return Err(Error::invalid_job(format!("{place}: operator {uid} has no state {name:?}; {there}")));
    }
    Ok(Found::List(parts))
}

/// The kind of a keyed state; `None` if there is none of that name. Nobody declares timers: every keyed operator has
/// them.
///
/// # Errors
/// `IncompatibleState` if the snapshot names a kind that this version does not know.
pub(crate) fn keyed_kind(operator: &OperatorSnapshot, name: &str) -> Result<Option<StateKind>> {
    if is_keyed(operator) && is_timers(name) {
        return Ok(Some(StateKind::Timers));
    }
    let state = operator.states.iter().find(|state| state.name == name);
    let kind = state.map(|state| {
        let (uid, kind) = (&operator.uid, &state.kind);
        StateSpec::kind_of_text(kind).map(|(kind, _)| kind).ok_or_else(|| {
            Error::incompatible(format!(
                "operator {uid}, state {name:?} is of kind {kind:?}, which was written by a newer version: use a newer command"
            ))
        })
    });
    kind.transpose()
}

/// Whether the entries of a keyed state have a time to live.
pub(crate) fn expires(operator: &OperatorSnapshot, name: &str) -> bool {
    operator.states.iter().any(|state| state.name == name && state.expires())
}

/// The names of all states, in order.
pub(crate) fn names(operator: &OperatorSnapshot) -> BTreeSet<&str> {
    let mut names: BTreeSet<&str> = operator.states.iter().map(|state| state.name.as_str()).collect();
    if is_keyed(operator) {
        names.extend([EVENT_TIMERS, PROCESSING_TIMERS]);
    }
    let parts = operator.subtasks.iter().flat_map(|subtask| &subtask.lists);
    names.extend(parts.filter(|part| operator.is_list_state(part)).map(|part| part.name.as_str()));
    names
}

fn is_keyed(operator: &OperatorSnapshot) -> bool {
    !operator.states.is_empty() || !operator.key_shape.is_empty()
}

/// The parts of an operator list state, by subtask; of a broadcast one, which is the same everywhere, the first.
pub(crate) fn list_parts<'a>(
    operator: &'a OperatorSnapshot,
    name: &str,
) -> Vec<(&'a SubtaskSnapshot, &'a ListPart)> {
    let parts =
        operator.subtasks.iter().flat_map(|subtask| subtask.lists.iter().map(move |it| (subtask, it)));
    let mut parts: Vec<_> =
        parts.filter(|(_, part)| part.name == name && operator.is_list_state(part)).collect();
    if parts.first().is_some_and(|(_, part)| part.redistribution == Redistribution::Broadcast) {
        parts.truncate(1);
    }
    parts
}

/// The shape whose stored form these bytes are; none of no bytes.
///
/// # Errors
/// `Corrupt` if they are not.
pub(crate) fn shape(bytes: &[u8]) -> Result<Option<Shape>> {
    if bytes.is_empty() { Ok(None) } else { Shape::from_bytes(bytes).map(Some) }
}

/// The shape of an operator's keys, where it is known.
///
/// # Errors
/// `Corrupt` if it cannot be read.
pub(crate) fn key_shape(operator: &OperatorSnapshot) -> Result<Option<Shape>> {
    shape(&operator.key_shape).map_err(|error| error.context(format!("operator {}", operator.uid)))
}

/// The runs of a subtask with until when their state had expired: whoever reads them asks for them here, since without
/// that what has expired would be seen again.
pub(crate) struct Kept<'a> {
    runs: &'a [Run],
    clocks: ExpiryClocks,
}

impl<'a> Kept<'a> {
    /// Those of a subtask.
    ///
    /// # Errors
    /// `Corrupt` if until when state had expired cannot be read.
    pub(crate) fn of(subtask: &'a SubtaskSnapshot) -> Result<Self> {
        Ok(Self { runs: &subtask.runs, clocks: subtask.expiry_clocks()? })
    }

    pub(crate) fn runs(&self) -> RunSet<'_> {
        RunSet::new(self.runs, &self.clocks)
    }
}

/// Reads what is selected of an operator's state, subtask by subtask. Their key groups ascend, so that entries come by
/// key group, key, and place below the key, whatever the parallelism.
pub(crate) struct StateReader<'a> {
    env: &'a Env,
    store: &'a dyn Store,
    selection: Selection,
    subtasks: std::slice::Iter<'a, SubtaskSnapshot>,
    /// What is being read, and how long its files are.
    scan: Option<(Scan, u64)>,
    done: u64,
    total: u64,
}

impl<'a> StateReader<'a> {
    pub(crate) fn new(
        env: &'a Env,
        store: &'a dyn Store,
        operator: &'a OperatorSnapshot,
        selection: Selection,
    ) -> Self {
        let subtasks = &operator.subtasks;
        let wanted = subtasks.iter().filter(|subtask| is_wanted(&selection, subtask));
        let total = wanted.map(len).sum();
        Self { env, store, selection, subtasks: subtasks.iter(), scan: None, done: 0, total }
    }

    /// The next entries; `None` when there are no more.
    ///
    /// # Errors
    /// As [`Scan`]'s.
    pub(crate) async fn next(&mut self) -> Result<Option<LiveBatch>> {
        loop {
            if let Some((scan, len)) = &mut self.scan {
                if let Some(batch) = scan.next(self.env, self.store).await? {
                    return Ok(Some(batch));
                }
                self.done += *len;
                self.scan = None;
            }
            let selection = &self.selection;
            let Some(subtask) = self.subtasks.find(|subtask| is_wanted(selection, subtask)) else {
                return Ok(None);
            };
            let kept = Kept::of(subtask)?;
            let scan = Scan::select(self.store, kept.runs(), &self.selection).await?;
            self.scan = Some((scan, len(subtask)));
        }
    }

    /// How much was read and how much there is, as if all of the files were read.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let part = self.scan.as_ref().map_or(0, |(scan, len)| {
            let (read, all) = scan.progress();
            (u128::from(*len) * u128::from(read) / u128::from(all.max(1))) as u64
        });
        (self.done + part, self.total)
    }
}

fn is_wanted(selection: &Selection, subtask: &SubtaskSnapshot) -> bool {
    selection.groups.intersect(subtask.groups).is_some()
}

fn len(subtask: &SubtaskSnapshot) -> u64 {
    subtask.runs.iter().map(|run| run.file.len).sum()
}

/// A key by its shape; the stored bytes where that is not known.
///
/// # Errors
/// `Corrupt` if these are not the bytes of such a key.
pub(crate) fn key_value(shape: Option<&Shape>, bytes: &[u8]) -> Result<ShapedValue> {
    match shape {
        Some(shape) => ShapedValue::decode_key(shape, bytes),
        None => Ok(ShapedValue::Opaque(bytes.to_vec())),
    }
    .map_err(|error| error.context("a key"))
}

/// What stands below a key: a map key, or a time.
///
/// # Errors
/// `Corrupt` if it is not of the shape that the run says.
pub(crate) fn below(spec: &StateSpec, sub: &[u8]) -> Result<ShapedValue> {
    key_value(spec.map_key.as_ref(), sub).map_err(|error| of_state(error, spec))
}

/// A value, or an element of a list, without the deadline that it may have.
///
/// # Errors
/// `Corrupt` if it is not of the shape that the run says.
pub(crate) fn value(spec: &StateSpec, bytes: &[u8]) -> Result<ShapedValue> {
    let decode = |bytes| ShapedValue::decode(&spec.shape, &spec.codec, bytes);
    spec.without_deadline(bytes).and_then(decode).map_err(|error| of_state(error, spec))
}

/// Until when a value or element lives, if it expires.
///
/// # Errors
/// `Corrupt` if its deadline is cut.
pub(crate) fn deadline(spec: &StateSpec, bytes: &[u8]) -> Result<Option<Timestamp>> {
    spec.deadline(bytes).map_err(|error| of_state(error, spec))
}

/// An element of an operator list state as a value.
///
/// # Errors
/// `Corrupt` if it is not of the shape that the snapshot says.
pub(crate) fn list_element(part: &ListPart, element: &[u8]) -> Result<ShapedValue> {
    match shape(&part.shape)? {
        Some(shape) => ShapedValue::decode(&shape, &part.codec, element),
        None => Ok(ShapedValue::Opaque(element.to_vec())),
    }
}

fn of_state(error: Error, spec: &StateSpec) -> Error {
    error.context(format!("state {:?}", spec.name))
}
