//! What was drained with a store behind, as the entries that would have been drained without one: a place may have been
//! drained several times in one interval, early and at its end, and the later one wins.
//!
//! Notes tell what only the beginning of the interval knew: that a place was empty then, so that what came and went
//! since leaves no trace. Called by `run::writer` away from the tasks; the bytes of a run depend on the cut alone.

use types::{KeyGroup, KeyGroupRange, Result};

use super::{
    entry::{Entry, EntryKind, push_entry},
    list_chunk::{CHUNK_ELEMENTS, chunk_number, elements, epoch_of, push_element},
    sort::visit_keys,
};
use crate::{
    declare::StateKind,
    table::{Drained, Line},
};

/// Calls `visit` with the encoded entries that `drained` comes to, in the order of a run.
pub(crate) fn visit_resolved(
    drained: &Drained,
    kind: StateKind,
    groups: KeyGroupRange,
    mut visit: impl FnMut(KeyGroup, &[u8]) -> Result<()>,
) -> Result<()> {
    visit_keys(drained, groups, |of_key| match kind {
        kind if kind.is_one_value() => resolve_place(of_key, false, &mut visit),
        StateKind::List => resolve_list(of_key, &mut visit),
        _ => resolve_places(of_key, &mut visit),
    })
}

/// Everything that one interval drained of one place since it was cleared, or from the beginning of the interval.
fn resolve_place<'a>(
    lines: impl IntoIterator<Item = &'a Line<'a>>,
    was_cleared: bool,
    visit: &mut impl FnMut(KeyGroup, &[u8]) -> Result<()>,
) -> Result<()> {
    let (mut was_empty, mut last) = (was_cleared, None);
    for (number, line) in lines.into_iter().enumerate() {
        was_empty |= number == 0 && line.is_note;
        last = if line.is_note { last } else { Some(line) };
    }
    match last {
        Some(last) if !(was_empty && last.entry.is_tombstone()) => visit(last.group, last.bytes),
        _ => Ok(()),
    }
}

/// Everything that one interval drained of one key of a map state.
fn resolve_places(lines: &[Line<'_>], visit: &mut impl FnMut(KeyGroup, &[u8]) -> Result<()>) -> Result<()> {
    let cleared = lines.iter().rposition(|line| line.entry.kind == EntryKind::Clear);
    let was_empty = lines[0].is_note && lines[0].entry.sub.is_empty();
    if let Some(at) = cleared
        && !was_empty
    {
        visit(lines[at].group, lines[at].bytes)?;
    }
    let mut left: Vec<&Line<'_>> = lines[cleared.map_or(0, |at| at + 1)..].iter().collect();
    left.sort_by_key(|line| line.entry.sub);
    for of_place in left.chunk_by(|a, b| a.entry.sub == b.entry.sub) {
        resolve_place(of_place.iter().copied(), cleared.is_some(), visit)?;
    }
    Ok(())
}

/// Everything that one interval drained of one list: chunks are cut anew, as if all had been drained at once.
fn resolve_list(lines: &[Line<'_>], visit: &mut impl FnMut(KeyGroup, &[u8]) -> Result<()>) -> Result<()> {
    let cleared = lines.iter().find(|line| line.entry.kind == EntryKind::Clear && !line.is_note);
    if let Some(line) = cleared {
        visit(line.group, line.bytes)?;
    }
    let begin = lines.iter().rposition(|line| line.entry.kind == EntryKind::Clear).map_or(0, |at| at + 1);
    let mut items = Vec::new();
    for line in &lines[begin..] {
        for element in elements(line.entry.value) {
            items.push(element?);
        }
    }
    let Some(first) = lines.get(begin) else { return Ok(()) };
    let (epoch, mut value, mut bytes) = (epoch_of(first.entry.sub)?, Vec::new(), Vec::new());
    for (sequence, chunk) in (0..).zip(items.chunks(CHUNK_ELEMENTS)) {
        value.clear();
        for element in chunk {
            push_element(&mut value, |out| {
                out.extend_from_slice(element);
                Ok(())
            })?;
        }
        bytes.clear();
        let sub = chunk_number(epoch, sequence);
        push_entry(
            &mut bytes,
            &Entry { kind: EntryKind::Put, key: first.entry.key, sub: &sub, value: &value },
        );
        visit(first.group, &bytes)?;
    }
    Ok(())
}
