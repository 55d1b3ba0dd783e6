//! Puts the drained entries of a state into the order of a run: by key group, key, and place below the key.
//!
//! What is sorted is small: the first eight bytes of a key as a number, and where the entry lies. The entries themselves
//! are copied once, to their final place.

use types::{Error, KeyGroup, KeyGroupRange, Result};

use super::entry::{Entry, EntryKind, Item, Items, decode};
use crate::table::Drained;

/// An entry, where it lies, and the beginning of its key as a number that sorts alike.
struct Handle<'a> {
    prefix: u64,
    bytes: &'a [u8],
}

impl<'a> Handle<'a> {
    fn new(entry: &Entry<'a>, bytes: &'a [u8]) -> Self {
        Self { prefix: prefix(entry.key), bytes }
    }
}

/// The first eight bytes of a key as a number that sorts alike; shorter keys are filled up with zeros.
#[inline]
pub(crate) fn prefix(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut bytes = [0; 8];
    bytes[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(bytes)
}

/// By what entries of one key group are sorted. A range tombstone comes before everything of its key.
pub(crate) fn place<'a>(entry: &Entry<'a>) -> (&'a [u8], bool, &'a [u8]) {
    (entry.key, entry.kind != EntryKind::Clear, entry.sub)
}

/// Calls `visit` with the encoded entries of `drained`, in the order of a run.
pub(crate) fn visit_sorted(
    drained: &Drained,
    groups: KeyGroupRange,
    mut visit: impl FnMut(KeyGroup, &[u8]) -> Result<()>,
) -> Result<()> {
    for (mut handles, group) in by_group(drained, groups)?.into_iter().zip(groups.iter()) {
        handles.sort_unstable_by(|a, b| {
            // Keys are decoded again only where eight bytes do not decide.
            a.prefix.cmp(&b.prefix).then_with(|| place(&decode(a.bytes)).cmp(&place(&decode(b.bytes))))
        });
        for handle in &handles {
            visit(group, handle.bytes)?;
        }
    }
    Ok(())
}

/// The entries of each key group, in the order in which they were drained.
fn by_group(drained: &Drained, groups: KeyGroupRange) -> Result<Vec<Vec<Handle<'_>>>> {
    let mut handles: Vec<Vec<Handle<'_>>> = groups.iter().map(|_| Vec::new()).collect();
    for chunk in drained.chunks() {
        let mut at = 0;
        while let Some(group) = chunk.get(at..at + 2) {
            let group = KeyGroup(u16::from_le_bytes([group[0], group[1]]));
            let mut items = Items::new(chunk, at + 2);
            let Some(Item::Entry(entry)) = items.next()? else {
                return Err(Error::internal("a drained chunk holds something that is no entry"));
            };
            let handle = Handle::new(&entry, &chunk[at + 2..items.position()]);
            handles
                .get_mut(usize::from(group.0.wrapping_sub(groups.start)))
                .ok_or_else(|| Error::internal(format!("key group {group} was drained outside of {groups}")))?
                .push(handle);
            at = items.position();
        }
    }
    Ok(handles)
}
