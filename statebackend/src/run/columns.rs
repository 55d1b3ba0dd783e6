//! The form in which the items of a block are compressed: what is alike stands together, and of a place only what the one
//! before did not say. Then a compressor has little to search in and finds more; see `docs/0008-columns.md`.
//!
//! ```text
//! heads len u32 | places len u32 | heads | shared, one byte for each entry | places | values
//! ```
//!
//! A head is an item up to its first part: tag and lengths, or a whole mark. A place is key and sub in one; `shared` says
//! how many of its bytes, at most 255, are those of the place before and left out (front coding, as in Witten, Moffat,
//! Bell: Managing Gigabytes).

use types::{Error, Result};

use super::{
    copy::{append_again, append_first},
    entry::Head,
};

/// What stands before the columns.
const LENGTHS: usize = 8;
/// The most bytes that two places share.
const MAX_SHARED: usize = u8::MAX as usize;
/// An entry has a tag and a length.
pub(crate) const MIN_ENTRY: usize = 2;

/// The greatest length in columns of so many entries that take `plain_len` as rows.
pub(crate) fn bound(plain_len: usize, entries: usize) -> usize {
    LENGTHS + plain_len + entries
}

/// The columns of a block that is being written. Used again for the next one.
#[derive(Default)]
pub(crate) struct Columns {
    out: Vec<u8>,
    shared: Vec<u8>,
    places: Vec<u8>,
    values: Vec<u8>,
}

impl Columns {
    /// Puts rows, items one after the other, into columns.
    ///
    /// # Errors
    /// `Corrupt` if there is something else among the rows.
    pub(crate) fn split(&mut self, rows: &[u8]) -> Result<&[u8]> {
        let Self { out, shared, places, values } = self;
        for column in [&mut *out, shared, places, values] {
            column.clear();
        }
        out.extend_from_slice(&[0; LENGTHS]);
        let (mut at, mut before): (usize, &[u8]) = (0, &[]);
        while at < rows.len() {
            let rest = &rows[at..];
            let head = Head::read(rest)?;
            append_first(out, rest, head.len);
            at += head.item_len();
            if head.is_mark() {
                continue;
            }
            let place = &rest[head.len..head.len + head.place()];
            let alike = alike(before, place);
            shared.push(alike as u8);
            append_first(places, &rest[head.len + alike..], head.place() - alike);
            append_first(values, &rest[head.len + head.place()..], head.value);
            before = place;
        }
        let heads = (out.len() - LENGTHS) as u32;
        out[..4].copy_from_slice(&heads.to_le_bytes());
        out[4..LENGTHS].copy_from_slice(&(places.len() as u32).to_le_bytes());
        for column in [&*shared, places, values] {
            out.extend_from_slice(column);
        }
        Ok(out)
    }
}

/// Puts columns of `entries` entries back into rows of `plain_len` bytes.
///
/// # Errors
/// `Corrupt` if the columns do not hold just that.
pub(crate) fn join(columns: &[u8], entries: usize, plain_len: usize) -> Result<Vec<u8>> {
    let [mut heads, shared, mut places, mut values] = cut(columns, entries)?;
    let mut rows = Vec::with_capacity(plain_len);
    let (mut shared, mut before) = (shared.iter(), 0..0);
    while !heads.is_empty() {
        let head = Head::read_only(heads)?;
        if head.item_len() > plain_len - rows.len() {
            return Err(misfit());
        }
        append_first(&mut rows, heads, head.len);
        heads = &heads[head.len..];
        if head.is_mark() {
            continue;
        }
        let alike = usize::from(*shared.next().ok_or_else(misfit)?);
        if alike > before.len() || alike > head.place() {
            return Err(misfit());
        }
        let begin = rows.len();
        append_again(&mut rows, before.start, alike);
        take(&mut rows, &mut places, head.place() - alike)?;
        before = begin..rows.len();
        take(&mut rows, &mut values, head.value)?;
    }
    let all_used = shared.len() == 0 && places.is_empty() && values.is_empty();
    if all_used && rows.len() == plain_len { Ok(rows) } else { Err(misfit()) }
}

/// Heads, shared lengths, places, values.
fn cut(columns: &[u8], entries: usize) -> Result<[&[u8]; 4]> {
    let (lengths, rest) = columns.split_first_chunk::<LENGTHS>().ok_or_else(misfit)?;
    let length = |at: usize| {
        let bytes = [lengths[at], lengths[at + 1], lengths[at + 2], lengths[at + 3]];
        u32::from_le_bytes(bytes) as usize
    };
    let (heads, rest) = rest.split_at_checked(length(0)).ok_or_else(misfit)?;
    let (shared, rest) = rest.split_at_checked(entries).ok_or_else(misfit)?;
    let (places, values) = rest.split_at_checked(length(4)).ok_or_else(misfit)?;
    Ok([heads, shared, places, values])
}

#[cold]
fn misfit() -> Error {
    Error::corrupt("the columns of a block do not fit each other")
}

/// How many bytes two places have alike in front.
#[inline]
fn alike(a: &[u8], b: &[u8]) -> usize {
    let len = a.len().min(b.len()).min(MAX_SHARED);
    let (a, b) = (&a[..len], &b[..len]);
    let mut at = 0;
    while let (Some(left), Some(right)) = (a[at..].first_chunk::<8>(), b[at..].first_chunk::<8>()) {
        let differing = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if differing != 0 {
            return at + differing.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + a[at..].iter().zip(&b[at..]).take_while(|(left, right)| left == right).count()
}

/// Moves the first `len` bytes of `column` over.
#[inline(always)]
fn take(out: &mut Vec<u8>, column: &mut &[u8], len: usize) -> Result<()> {
    if len > column.len() {
        return Err(misfit());
    }
    append_first(out, column, len);
    *column = &column[len..];
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use types::KeyGroup;

    use super::*;
    use crate::run::entry::{Entry, EntryKind, push_entry, push_mark};

    /// Kind, key, sub, value.
    type Parts = (EntryKind, Vec<u8>, Vec<u8>, Vec<u8>);

    /// Rows with their number of entries.
    fn rows(entries: &[Parts], mark_every: usize) -> (Vec<u8>, usize) {
        let mut rows = Vec::new();
        for (number, (kind, key, sub, value)) in entries.iter().enumerate() {
            if number.is_multiple_of(mark_every) {
                push_mark(&mut rows, number as u16, KeyGroup(7));
            }
            push_entry(&mut rows, &Entry { kind: *kind, key, sub, value });
        }
        (rows, entries.len())
    }

    fn round_trip(rows: &[u8], entries: usize) -> usize {
        let mut columns = Columns::default();
        columns.split(&rows[..0]).unwrap();
        let columns = columns.split(rows).unwrap();
        assert!(columns.len() <= bound(rows.len(), entries));
        assert_eq!(join(columns, entries, rows.len()).unwrap(), rows);
        columns.len()
    }

    fn entry() -> impl Strategy<Value = Parts> {
        // Few letters, so that places are often alike; lengths around the chunk and around those of one byte.
        let of_length = |length: std::ops::Range<usize>| proptest::collection::vec(0_u8..2, length);
        let part = || prop_oneof![of_length(0..3), of_length(6..20), of_length(250..300)];
        let kind = prop_oneof![
            4 => Just(EntryKind::Put),
            1 => Just(EntryKind::Delete),
            1 => Just(EntryKind::Clear)
        ];
        (kind, part(), part(), part())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn rows_come_back(entries in proptest::collection::vec(entry(), 0..40), mark_every in 1_usize..9) {
            let (rows, entries) = rows(&entries, mark_every);
            round_trip(&rows, entries);
        }

        #[test]
        fn damage_is_refused_or_harmless(
            entries in proptest::collection::vec(entry(), 1..20),
            at in any::<prop::sample::Index>(),
            bits in 1_u8..,
        ) {
            let (rows, entries) = rows(&entries, 5);
            let mut columns = Columns::default();
            let mut columns = columns.split(&rows).unwrap().to_vec();
            let at = at.index(columns.len());
            columns[at] ^= bits;
            if let Ok(joined) = join(&columns, entries, rows.len()) {
                prop_assert_eq!(joined.len(), rows.len());
                prop_assert!(joined != rows, "byte {} does not count", at);
            }
            prop_assert!(join(&columns[..at], entries, rows.len()).is_err(), "cut at {}", at);
        }
    }

    #[test]
    fn neighbouring_numbers_take_little() {
        let entries: Vec<_> = (0..1000_u64)
            .map(|number| (EntryKind::Put, (3 * number).to_be_bytes().to_vec(), vec![], vec![1, 2]))
            .collect();
        let (rows, count) = rows(&entries, 1000);
        // Of each key of eight bytes a little over one is left.
        let len = round_trip(&rows, count);
        assert!(len < LENGTHS + 5 + count * (3 + 1 + 2 + 2), "{len} bytes");
    }

    #[test]
    fn places_of_no_entry_are_refused() {
        let nothing = [0; LENGTHS];
        assert_eq!(join(&nothing, 0, 0).unwrap(), Vec::<u8>::new());
        assert!(join(&[&nothing[..], &[0]].concat(), 1, 0).is_err());
    }

    #[test]
    fn rows_of_something_else_are_refused() {
        assert!(Columns::default().split(&[9, 9, 9]).is_err());
        assert!(Columns::default().split(&[1, 5, 0, 1]).is_err());
    }
}
