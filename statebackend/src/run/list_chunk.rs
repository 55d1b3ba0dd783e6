//! How a chunk of a list's elements looks in bytes: each element's length as a varint, then its bytes. So chunks can be
//! joined and cut without knowing the element's type.

use types::{Error, Result};

use super::entry::MAX_PART;

/// The number of a chunk among those of its list: the interval that appended it, then a count. Ordered bytes.
pub(crate) type ChunkNumber = [u8; 12];

/// How many elements a chunk holds at most.
pub(crate) const CHUNK_ELEMENTS: usize = 256;

/// The number of the `sequence`-th chunk of `epoch`.
pub(crate) fn chunk_number(epoch: u64, sequence: u32) -> ChunkNumber {
    let mut number = [0; 12];
    number[..8].copy_from_slice(&epoch.to_be_bytes());
    number[8..].copy_from_slice(&sequence.to_be_bytes());
    number
}

/// The epoch of a chunk with this number.
pub(crate) fn epoch_of(number: &[u8]) -> Result<u64> {
    match number.first_chunk::<8>() {
        Some(epoch) if number.len() == size_of::<ChunkNumber>() => Ok(u64::from_be_bytes(*epoch)),
        _ => Err(Error::corrupt("the number of a list chunk is not 12 bytes long")),
    }
}

/// Appends an element, whose bytes `encode` appends.
pub(crate) fn push_element(out: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let at = out.len();
    out.push(0);
    encode(out)?;
    let mut len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
        return Ok(());
    }
    let mut varint = Vec::with_capacity(5);
    while len >= 0x80 {
        varint.push(len as u8 | 0x80);
        len >>= 7;
    }
    varint.push(len as u8);
    out.splice(at..=at, varint);
    Ok(())
}

/// The elements of a chunk, in order. Ends after the first error.
pub(crate) fn elements(chunk: &[u8]) -> impl Iterator<Item = Result<&[u8]>> {
    let mut rest = chunk;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let element = split_element(&mut rest);
        if element.is_err() {
            rest = &[];
        }
        Some(element)
    })
}

fn split_element<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let mut len = 0;
    for shift in (0..35).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or_else(cut)?;
        *rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let (element, after) = rest.split_at_checked(len).ok_or_else(cut)?;
            *rest = after;
            return Ok(element);
        }
        if len > MAX_PART {
            break;
        }
    }
    Err(cut())
}

#[cold]
fn cut() -> Error {
    Error::corrupt("an element goes beyond the end of its list chunk")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn elements_of_all_lengths_come_back() {
        let lengths = [0, 1, 127, 128, 129, 16_383, 16_384, 70_000];
        let mut chunk = Vec::new();
        for len in lengths {
            push_element(&mut chunk, |out| {
                out.extend(std::iter::repeat_n(7, len));
                Ok(())
            })
            .unwrap();
        }
        let found: Vec<usize> = elements(&chunk).map(|element| element.unwrap().len()).collect();
        assert_eq!(found, lengths);
        for cut in 0..chunk.len().min(400) {
            let whole = elements(&chunk[..cut]).take_while(Result::is_ok).count();
            assert!(whole < lengths.len());
        }
    }

    #[test]
    fn chunk_numbers_sort_by_epoch_then_sequence() {
        assert!(chunk_number(1, 300) < chunk_number(2, 0));
        assert!(chunk_number(2, 255) < chunk_number(2, 256));
        assert_eq!(epoch_of(&chunk_number(77, 3)).unwrap(), 77);
        assert!(epoch_of(&[0; 11]).is_err());
    }
}
