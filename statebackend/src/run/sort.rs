//! Puts the drained entries of a state into the order of a run: by key group, key, and place below the key.
//!
//! What is sorted is small: the first eight bytes of a key as a number, and where the entry lies; of one key group at a time,
//! so that all of it stays in the processor's caches. The entries themselves are copied once, to their final place. Where
//! there are many, they are dealt out by the bits in which those numbers differ first, without comparing any; what that does
//! not tell apart is compared.

use std::{hint::black_box, ops::RangeInclusive};

use types::{Error, KeyGroup, KeyGroupRange, Result};

use super::entry::{Entry, EntryKind, Head, decode};
use crate::table::{Drained, GROUP_LEN, Line, key_group};

/// The beginning of an entry's key as a number that sorts alike, and where the entry lies.
#[derive(Clone, Copy, Debug, Default)]
struct Handle {
    prefix: u64,
    chunk: u32,
    /// Its first byte in the chunk. Chunks are shorter than 4 GiB: an entry has three parts of at most 1 GiB.
    at: u32,
}

impl Handle {
    /// The bytes of a chunk from the entry on.
    #[inline]
    fn bytes<'a>(&self, chunks: &'a [Vec<u8>]) -> &'a [u8] {
        &chunks[self.chunk as usize][self.at as usize..]
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

/// So many entries are looked up ahead: each lies elsewhere in memory, and waiting for many takes no longer than for one.
const AHEAD: usize = 32;

/// Calls `visit` with the encoded entries of `drained`, in the order of a run.
pub(crate) fn visit_sorted(
    drained: &Drained,
    groups: KeyGroupRange,
    mut visit: impl FnMut(KeyGroup, &[u8]) -> Result<()>,
) -> Result<()> {
    let chunks = drained.chunks();
    let (mut handles, mut spare) = (Vec::new(), Vec::new());
    for (spans, group) in by_group(drained, groups)?.into_iter().zip(groups.iter()) {
        handles.clear();
        let prefixes = list(&spans, chunks, &mut handles)?;
        sort(&mut handles, &mut spare, prefixes, |alike| by_place(alike, chunks));
        for block in handles.chunks(AHEAD) {
            fetch(block.iter().map(|handle| handle.bytes(chunks)));
            for handle in block {
                let bytes = handle.bytes(chunks);
                visit(group, &bytes[..Head::read(bytes)?.item_len()])?;
            }
        }
    }
    Ok(())
}

/// Calls `visit` with all that was drained of each key, notes included, in the order of draining; keys come in the order of a
/// run.
pub(crate) fn visit_keys(
    drained: &Drained,
    groups: KeyGroupRange,
    mut visit: impl FnMut(&[Line<'_>]) -> Result<()>,
) -> Result<()> {
    let chunks = drained.chunks();
    let (mut handles, mut spare, mut of_key) = (Vec::new(), Vec::new(), Vec::<Line<'_>>::new());
    for spans in by_group(drained, groups)? {
        handles.clear();
        let prefixes = list(&spans, chunks, &mut handles)?;
        sort(&mut handles, &mut spare, prefixes, |alike| by_time(alike, chunks));
        for block in handles.chunks(AHEAD) {
            fetch(block.iter().map(|handle| handle.bytes(chunks)));
            for handle in block {
                let line = Line::read(&chunks[handle.chunk as usize], handle.at as usize)?;
                if of_key.last().is_some_and(|last| last.entry.key != line.entry.key) {
                    visit(&of_key)?;
                    of_key.clear();
                }
                of_key.push(line);
            }
        }
        if !of_key.is_empty() {
            visit(&of_key)?;
            of_key.clear();
        }
    }
    Ok(())
}

/// Fewer handles than this are compared from the start.
const DEAL_MIN: usize = 256;
/// How many bits one deal looks at; there are two.
const DIGIT_BITS: u32 = 8;

/// Reads the beginning of each piece, so that the processor fetches all of them at the same time.
#[inline(always)]
fn fetch<'a>(pieces: impl Iterator<Item = &'a [u8]>) {
    let read = pieces.map(|piece| u32::from(piece.first().copied().unwrap_or_default()));
    black_box(read.fold(0, u32::wrapping_add));
}

/// Sorts handles whose prefixes lie within `prefixes`; those that these bits do not tell apart by `compare`.
fn sort(
    handles: &mut [Handle],
    spare: &mut Vec<Handle>,
    prefixes: RangeInclusive<u64>,
    compare: impl Fn(&mut [Handle]),
) {
    if handles.len() < DEAL_MIN {
        return compare(handles);
    }
    let (low, high) = prefixes.into_inner();
    let shift = (u64::BITS - (high - low).leading_zeros()).saturating_sub(2 * DIGIT_BITS);
    let number = |handle: &Handle| ((handle.prefix - low) >> shift) as usize;
    let digit = (1 << DIGIT_BITS) - 1;
    spare.resize(handles.len(), Handle::default());
    deal(handles, spare, |handle| number(handle) & digit);
    deal(spare, handles, |handle| number(handle) >> DIGIT_BITS);
    for alike in handles.chunk_by_mut(|a, b| number(a) == number(b)) {
        compare(alike);
    }
}

/// Copies `from` to `to`, sorted by one digit; those of one digit stay in order.
fn deal(from: &[Handle], to: &mut [Handle], digit: impl Fn(&Handle) -> usize) {
    let mut ends = [0; 1 << DIGIT_BITS];
    for handle in from {
        ends[digit(handle)] += 1;
    }
    let mut next = 0;
    for place in &mut ends {
        (*place, next) = (next, next + *place);
    }
    for handle in from {
        let place = &mut ends[digit(handle)];
        to[*place] = *handle;
        *place += 1;
    }
}

/// By the places of entries, of which each has one.
fn by_place(handles: &mut [Handle], chunks: &[Vec<u8>]) {
    if handles.len() > 1 {
        handles.sort_unstable_by(|a, b| {
            // Keys are read again only where eight bytes do not decide.
            let of = |handle: &Handle| decode(handle.bytes(chunks));
            a.prefix.cmp(&b.prefix).then_with(|| place(&of(a)).cmp(&place(&of(b))))
        });
    }
}

/// By key; what is of one key stays in the order of draining.
fn by_time(handles: &mut [Handle], chunks: &[Vec<u8>]) {
    if handles.len() > 1 {
        handles.sort_unstable_by(|a, b| {
            let of = |handle: &Handle| decode(handle.bytes(chunks)).key;
            let time = |handle: &Handle| (handle.chunk, handle.at);
            a.prefix.cmp(&b.prefix).then_with(|| of(a).cmp(of(b))).then_with(|| time(a).cmp(&time(b)))
        });
    }
}

/// Neighbouring entries of one key group in a chunk.
#[derive(Clone, Copy, Debug)]
struct Span {
    chunk: u32,
    begin: u32,
    end: u32,
}

/// The spans of each key group, in the order in which they were drained. Draining goes group by group, so most are long.
fn by_group(drained: &Drained, groups: KeyGroupRange) -> Result<Vec<Vec<Span>>> {
    let mut spans: Vec<Vec<Span>> = groups.iter().map(|_| Vec::new()).collect();
    let mut push = |group: KeyGroup, span: Span| {
        let of_group = spans.get_mut(usize::from(group.0.wrapping_sub(groups.start)));
        of_group.ok_or_else(|| outside(group, groups))?.push(span);
        Ok::<_, Error>(())
    };
    for (number, chunk) in drained.chunks().iter().enumerate() {
        let mut at = 0;
        let mut open: Option<(KeyGroup, u32)> = None;
        while let Some(&[low, high]) = chunk[at..].first_chunk() {
            let group = key_group(u16::from_le_bytes([low, high]));
            match open {
                Some((last, _)) if last == group => {}
                _ => {
                    if let Some((last, begin)) = open.replace((group, at as u32)) {
                        push(last, Span { chunk: number as u32, begin, end: at as u32 })?;
                    }
                }
            }
            at += GROUP_LEN + Head::read(&chunk[at + GROUP_LEN..])?.item_len();
        }
        if let Some((last, begin)) = open {
            push(last, Span { chunk: number as u32, begin, end: at as u32 })?;
        }
    }
    Ok(spans)
}

#[cold]
fn outside(group: KeyGroup, groups: KeyGroupRange) -> Error {
    Error::internal(format!("key group {group} was drained outside of {groups}"))
}

/// Lists the entries of some spans. Returns between what their prefixes lie.
fn list(spans: &[Span], chunks: &[Vec<u8>], handles: &mut Vec<Handle>) -> Result<RangeInclusive<u64>> {
    let (mut low, mut high) = (u64::MAX, 0);
    for block in spans.chunks(AHEAD) {
        // What was drained before its turn lies alone.
        fetch(block.iter().map(|span| &chunks[span.chunk as usize][span.begin as usize..]));
        for &Span { chunk, begin, end } in block {
            let bytes = &chunks[chunk as usize][..end as usize];
            let mut at = begin as usize;
            while at < bytes.len() {
                at += GROUP_LEN;
                let head = Head::read(&bytes[at..])?;
                let prefix = prefix(&bytes[at + head.len..][..head.key]);
                (low, high) = (low.min(prefix), high.max(prefix));
                handles.push(Handle { prefix, chunk, at: at as u32 });
                at += head.item_len();
            }
        }
    }
    Ok(low..=high)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// Drains a value under each key and checks that the keys come out as a comparing sort puts them.
    fn check(keys: &[Vec<u8>]) {
        let groups = KeyGroupRange { start: 3, end: 5 };
        let group = |key: &[u8]| KeyGroup(3 + u16::from(key.len().is_multiple_of(3)));
        let mut drained = Drained::default();
        for key in keys {
            drained.put(group(key), key, &[], &1_u64).unwrap();
        }
        let mut found = Vec::new();
        let visit = |group, bytes: &[u8]| {
            found.push((group, decode(bytes).key.to_vec()));
            Ok(())
        };
        visit_sorted(&drained, groups, visit).unwrap();
        let mut expected: Vec<_> = keys.iter().map(|key| (group(key), key.clone())).collect();
        expected.sort();
        assert!(found == expected, "{} keys of which the first is {:?}", keys.len(), keys.first());
    }

    /// Distinct numbers in no order.
    fn numbers(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(move |number| number * 7919 % count)
    }

    #[test]
    fn keys_of_every_distribution_are_sorted() {
        let count = 5000;
        let keys = |make: &dyn Fn(u64) -> Vec<u8>| numbers(count).map(make).collect::<Vec<_>>();
        check(&keys(&|number| number.to_be_bytes().to_vec()));
        // Around a power of two, where all bits change at once.
        check(&keys(&|number| (number + (1 << 40) - 2500).to_be_bytes().to_vec()));
        // All over the place, and up to the ends.
        check(&keys(&|number| (number.wrapping_mul(u64::MAX / count)).to_be_bytes().to_vec()));
        check(&[&keys(&|number| number.to_be_bytes().to_vec())[..], &[vec![0xff; 8]]].concat());
        // Alike in their first eight bytes, and of different lengths.
        check(&keys(&|number| format!("a long beginning {number}").into_bytes()));
        check(&keys(&|number| vec![0; number as usize]));
        // Far more in one place than elsewhere.
        check(&keys(&|number| (number * number * number * number).to_be_bytes().to_vec()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_keys_are_sorted(keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..2000)) {
            let mut seen = std::collections::BTreeSet::new();
            let distinct: Vec<_> = keys.into_iter().filter(|key| seen.insert(key.clone())).collect();
            check(&distinct);
        }
    }
}
