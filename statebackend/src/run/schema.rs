//! The schema section of a run: which states it holds, of which kinds, codecs and shapes, and how much of each.

use std::{collections::BTreeMap, sync::Arc};

use types::{Error, Result, Run, Shape, ShapeReader, TimeDomain};

use super::{
    bytes::{Cursor, push_counted, push_short_text},
    footer::Totals,
};
use crate::declare::{StateKind, StateSpec};

/// A state as it stands in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateSection {
    pub(crate) spec: Arc<StateSpec>,
    pub(crate) totals: Totals,
}

/// What a state takes besides its name and shapes: in a schema, in the copy that checks one, and itself.
const STATE_MEMORY: usize = 3 * size_of::<StateSection>() + size_of::<StateSpec>() + 64;
/// What the reserved states of timers take, which are not declared.
const TIMERS_MEMORY: usize = 4 << 10;

/// The states of a run, sorted by name: entries name them by their places here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schema {
    /// The shape of the stream's keys, if it was known.
    pub(crate) key: Option<Arc<Shape>>,
    pub(crate) states: Vec<StateSection>,
}

impl Schema {
    pub(crate) fn new(key: Option<Arc<Shape>>, specs: impl IntoIterator<Item = Arc<StateSpec>>) -> Self {
        let states = specs.into_iter().map(|spec| StateSection { spec, totals: Totals::default() }).collect();
        Self { key, states }
    }

    /// The states of several runs (oldest first) together that count, with nothing of them counted yet.
    ///
    /// # Errors
    /// `IncompatibleState` if two runs hold different states under one name.
    pub(crate) fn union<'a>(schemas: impl Iterator<Item = (&'a Run, &'a Self)>) -> Result<Self> {
        let mut key = None;
        let mut specs: BTreeMap<&str, &Arc<StateSpec>> = BTreeMap::new();
        for (run, schema) in schemas {
            key = schema.key.clone().or(key);
            for StateSection { spec, .. } in schema.states.iter().filter(|it| counts(run, it)) {
                if let Some(older) = specs.insert(&spec.name, spec)
                    && let Some(difference) = difference(older, spec)
                {
                    return Err(Error::incompatible(format!(
                        "{}: state {:?} of operator {} is not the one that older runs hold: {difference}",
                        run.file.path, spec.name, run.identity.operator
                    )));
                }
            }
        }
        Ok(Self::new(key, specs.into_values().cloned()))
    }

    /// Where each of the states of `run` stands in `other`, a union with it; `None` for those that do not count.
    pub(crate) fn places_in(&self, other: &Self, run: &Run) -> Vec<Option<u16>> {
        let place = |name: &str| other.states.binary_search_by(|state| state.spec.name.as_str().cmp(name));
        let place = |name: &str| place(name).expect("a union holds all states of its parts") as u16;
        self.states.iter().map(|state| counts(run, state).then(|| place(&state.spec.name))).collect()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        push_shape(&mut out, self.key.as_deref());
        out.extend_from_slice(&(self.states.len() as u16).to_le_bytes());
        for StateSection { spec, totals } in &self.states {
            push_short_text(&mut out, &spec.name);
            out.push(spec.kind as u8 | expiry_bits(spec.expiry));
            push_short_text(&mut out, &spec.codec);
            push_shape(&mut out, Some(&spec.shape));
            push_shape(&mut out, spec.map_key.as_ref());
            for total in [totals.entries, totals.tombstones, totals.plain_bytes] {
                out.extend_from_slice(&total.to_le_bytes());
            }
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_with(bytes, &mut ShapeReader::for_file(bytes.len()))
    }

    /// Whether a run with this schema could be read.
    ///
    /// # Errors
    /// `InvalidJob` if its shapes are larger than a reader allows.
    pub(crate) fn check_readable(&self) -> Result<()> {
        let bytes = self.encode();
        let mut shapes = ShapeReader::for_file(bytes.len());
        let read = shapes.take(TIMERS_MEMORY).and_then(|()| Self::decode_with(&bytes, &mut shapes));
        read.map(drop).map_err(|_| {
            Error::invalid_job(format!(
                "the shapes of the types in its {} take {} bytes, which is more than a snapshot can hold: keep fewer \
                 fields in one operator's state",
                types::count(self.states.len(), "state"),
                bytes.len()
            ))
        })
    }

    fn decode_with(bytes: &[u8], shapes: &mut ShapeReader) -> Result<Self> {
        let mut cursor = Cursor::new(bytes);
        let key = take_shape(&mut cursor, shapes)?.map(Arc::new);
        let count = usize::from(cursor.u16()?);
        shapes.take(count * STATE_MEMORY)?;
        let mut states: Vec<StateSection> = Vec::with_capacity(count);
        for _ in 0..count {
            let state = take_state(&mut cursor, shapes)?;
            if states.last().is_some_and(|last| last.spec.name >= state.spec.name) {
                return Err(Error::corrupt("states are not sorted by name"));
            }
            states.push(state);
        }
        cursor.finish()?;
        Ok(Self { key, states })
    }

    /// All of it together.
    pub(crate) fn totals(&self) -> Totals {
        self.states.iter().fold(Totals::default(), |sum, state| Totals {
            entries: sum.entries.saturating_add(state.totals.entries),
            tombstones: sum.tombstones.saturating_add(state.totals.tombstones),
            plain_bytes: sum.plain_bytes.saturating_add(state.totals.plain_bytes),
        })
    }
}

fn counts(run: &Run, state: &StateSection) -> bool {
    !run.without.contains(&state.spec.name)
}

/// The first difference between two states of one name.
fn difference(older: &StateSpec, newer: &StateSpec) -> Option<String> {
    if older.kind != newer.kind {
        return Some(format!("it was a {} and is a {}", older.kind.name(), newer.kind.name()));
    }
    if older.expiry != newer.expiry {
        return Some(format!("it was {:?} and is {:?}", older.kind_text(), newer.kind_text()));
    }
    if older.codec != newer.codec {
        return Some(format!("its codec was {:?} and is {:?}", older.codec, newer.codec));
    }
    let unit = Shape::Unit;
    let map_key = |spec: &StateSpec| spec.map_key.clone().unwrap_or(unit.clone());
    Shape::diff(&older.shape, &newer.shape).or_else(|| Shape::diff(&map_key(older), &map_key(newer)))
}

fn take_state(cursor: &mut Cursor<'_>, shapes: &mut ShapeReader) -> Result<StateSection> {
    let name = cursor.short_text()?.to_owned();
    let number = cursor.u8()?;
    let (kind, expiry) = take_kind(number).ok_or_else(|| {
        Error::incompatible(format!(
            "state {name:?} is of kind {number}, which was written by a newer version"
        ))
    })?;
    let codec = cursor.short_text()?.to_owned();
    let shape = take_shape(cursor, shapes)?;
    let shape = shape.ok_or_else(|| Error::corrupt(format!("state {name:?} has no shape")))?;
    let map_key = take_shape(cursor, shapes)?;
    let totals = Totals { entries: cursor.u64()?, tombstones: cursor.u64()?, plain_bytes: cursor.u64()? };
    Ok(StateSection { spec: Arc::new(StateSpec { name, kind, expiry, codec, shape, map_key }), totals })
}

/// What stands beside the number of a kind whose values have deadlines.
const EVENT_TIME: u8 = 0x40;
const PROCESSING_TIME: u8 = 0x80;

fn expiry_bits(expiry: Option<TimeDomain>) -> u8 {
    match expiry {
        None => 0,
        Some(TimeDomain::EventTime) => EVENT_TIME,
        Some(TimeDomain::ProcessingTime) => PROCESSING_TIME,
    }
}

fn take_kind(number: u8) -> Option<(StateKind, Option<TimeDomain>)> {
    let expiry = match number & (EVENT_TIME | PROCESSING_TIME) {
        0 => None,
        EVENT_TIME => Some(TimeDomain::EventTime),
        PROCESSING_TIME => Some(TimeDomain::ProcessingTime),
        _ => return None,
    };
    let kind = StateKind::from_number(number & !(EVENT_TIME | PROCESSING_TIME))?;
    (kind.can_expire() || expiry.is_none()).then_some((kind, expiry))
}

/// No shape is no bytes; no shape's own bytes are empty.
fn push_shape(out: &mut Vec<u8>, shape: Option<&Shape>) {
    push_counted(out, &shape.map(Shape::to_bytes).unwrap_or_default());
}

fn take_shape(cursor: &mut Cursor<'_>, shapes: &mut ShapeReader) -> Result<Option<Shape>> {
    match cursor.counted()? {
        [] => Ok(None),
        bytes => shapes.read(bytes).map(Some),
    }
}
