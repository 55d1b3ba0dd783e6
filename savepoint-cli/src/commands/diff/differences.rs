//! What differs in one state, place by place.

use std::cmp::Ordering;

use checkpoint::manifest::ListPart;
use statebackend::StateKind;
use types::{Error, Result, Shape, count};

use super::{
    Sides,
    pairs::{Pair, States},
};
use crate::{
    compare::{Difference, Item, Next, Tally},
    output::Output,
    rows::{Cell, Format, Rows},
    state,
};

/// Whether an element of an operator list was added or removed.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Added,
    Removed,
}

/// Compares operator lists as bags of elements: which subtask has which, and in what order, says how they were dealt out.
pub(super) fn lists<'a>(
    before: &[&'a ListPart],
    after: &[&'a ListPart],
    mut visit: impl FnMut(Change, (&'a ListPart, &'a [u8])) -> Result<Next>,
) -> Result<Tally> {
    let sorted = |parts: &[&'a ListPart]| {
        let elements = parts.iter().flat_map(|part| part.elements.iter().map(|it| (*part, it)));
        let mut elements: Vec<_> = elements.collect();
        elements.sort_by_key(|(_, element)| *element);
        elements
    };
    let (before, after) = (sorted(before), sorted(after));
    let (mut old, mut new) = (before.into_iter().peekable(), after.into_iter().peekable());
    let mut tally = Tally::default();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Ok(tally),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((_, old)), Some((_, new))) => old.cmp(new),
        };
        let next = match order {
            Ordering::Less => {
                tally.removed += 1;
                old.next().map_or(Ok(Next::Go), |element| visit(Change::Removed, element))
            }
            Ordering::Greater => {
                tally.added += 1;
                new.next().map_or(Ok(Next::Go), |element| visit(Change::Added, element))
            }
            Ordering::Equal => {
                tally.unchanged += 1;
                old.next();
                new.next();
                Ok(Next::Go)
            }
        };
        if next? == Next::Stop {
            return Ok(tally);
        }
    }
}

impl Sides<'_> {
    /// Prints what differs in one state. Returns whether anything does.
    pub(super) async fn print(
        &self,
        pair: &Pair<'_>,
        limit: Option<u64>,
        output: &mut Output,
    ) -> Result<bool> {
        let format = if output.is_json() { Format::Json } else { Format::Table };
        let limit = limit.unwrap_or(u64::MAX);
        let printed = match &pair.states {
            States::Different(difference) => {
                let (uid, state) = (pair.uid, pair.state);
                return Err(Error::incompatible(format!(
                    "state {state:?} of operator {uid} cannot be compared: {difference}"
                )));
            }
            States::Keyed(kind) => {
                let rows = Rows::new(output, format, columns(*kind, pair.expires));
                self.keyed(pair, rows, limit).await
            }
            States::Lists(before, after) => {
                let mut rows = Rows::new(output, format, &["change", "value"]);
                let tally = lists(before, after, |change, (part, element)| {
                    if rows.count() >= limit || !rows.has_reader() {
                        return Ok(Next::Stop);
                    }
                    let word = match change {
                        Change::Added => "added",
                        Change::Removed => "removed",
                    };
                    rows.push(&[
                        Cell::Word(word.to_owned()),
                        Cell::Value(state::list_element(part, element)?),
                    ])?;
                    Ok(Next::Go)
                });
                rows.end(tally.is_ok())?;
                tally
            }
        };
        let printed = printed.map_err(|error| error.context(format!("operator {}", pair.uid)));
        Ok(printed?.differs())
    }

    async fn keyed(&self, pair: &Pair<'_>, mut rows: Rows<'_>, limit: u64) -> Result<Tally> {
        let shape = |operator: Option<_>| operator.map(state::key_shape).transpose().map(Option::flatten);
        let key_shape = shape(pair.after)?.or(shape(pair.before)?);
        let [mut before, mut after] = pair.sides(self);
        let tally = crate::compare::compare(&mut before, &mut after, |difference| {
            if rows.count() >= limit || !rows.has_reader() {
                return Ok(Next::Stop);
            }
            rows.push(&row(difference, key_shape.as_ref(), pair.expires)?)?;
            Ok(Next::Go)
        });
        let tally = tally.await;
        rows.end(tally.is_ok())?;
        tally
    }
}

/// What a row of a keyed state says; the last two columns only where it has a time to live.
fn columns(kind: StateKind, expires: bool) -> &'static [&'static str] {
    let columns: &[&str] = match kind {
        StateKind::Map => &["change", "key", "map_key", "before", "after", "expires_before", "expires_after"],
        StateKind::Timers => return &["change", "key", "time"],
        _ => &["change", "key", "before", "after", "expires_before", "expires_after"],
    };
    &columns[..columns.len() - if expires { 0 } else { 2 }]
}

/// A difference as a row.
fn row(difference: Difference<'_>, key_shape: Option<&Shape>, expires: bool) -> Result<Vec<Cell>> {
    let (word, before, after) = match difference {
        Difference::Added(new) => ("added", None, Some(new)),
        Difference::Removed(old) => ("removed", Some(old), None),
        Difference::Changed(old, new) => ("changed", Some(old), Some(new)),
    };
    let item = after.or(before).ok_or_else(|| Error::internal("a difference has neither side"))?;
    let mut row = vec![Cell::Word(word.to_owned()), Cell::Value(state::key_value(key_shape, &item.key)?)];
    let kind = item.spec.as_ref().map(|spec| spec.kind);
    if let (Some(StateKind::Map | StateKind::Timers), Some(spec)) = (kind, &item.spec) {
        row.push(Cell::Value(state::below(spec, &item.sub)?));
    }
    if kind != Some(StateKind::Timers) {
        row.push(before.map_or(Ok(Cell::Nothing), value)?);
        row.push(after.map_or(Ok(Cell::Nothing), value)?);
        let sides = [before, after].into_iter().filter(|_| expires);
        row.extend(sides.map(|side| Cell::time(side.and_then(|item| item.expires))));
    }
    Ok(row)
}

/// What a side has: of a list only how much, since no list is kept whole.
fn value(item: &Item) -> Result<Cell> {
    match &item.spec {
        Some(spec) if spec.kind == StateKind::List => Ok(Cell::Word(count(item.elements, "element"))),
        Some(spec) => state::value(spec, &item.value).map(Cell::Value),
        None => Ok(Cell::Nothing),
    }
}
