//! Appending short pieces of bytes without a call: entries are short and many, and a call for each of their parts costs
//! more than the copy.

/// Appends `bytes`. Up to 32 of them go as two overlapping pieces of a fixed length.
#[inline(always)]
pub(crate) fn append(out: &mut Vec<u8>, bytes: &[u8]) {
    match bytes.len() {
        1 => out.push(bytes[0]),
        2..4 => append_ends::<2>(out, bytes),
        16..=32 => append_ends::<16>(out, bytes),
        8..16 => append_ends::<8>(out, bytes),
        4..8 => append_ends::<4>(out, bytes),
        _ => out.extend_from_slice(bytes),
    }
}

/// Appends at least `N` and at most `2 * N` bytes.
#[inline(always)]
fn append_ends<const N: usize>(out: &mut Vec<u8>, bytes: &[u8]) {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) {
        let last_at = out.len() + bytes.len() - N;
        out.extend_from_slice(first);
        out.truncate(last_at);
        out.extend_from_slice(last);
    }
}

/// What is copied at once where there is as much: copying too much and cutting it off again is quicker than asking how long
/// a piece is.
const CHUNK: usize = 16;

/// Appends the first `len` bytes of `from`, which has as many, and more where it can be had.
#[inline(always)]
pub(crate) fn append_first(out: &mut Vec<u8>, from: &[u8], len: usize) {
    match from.first_chunk::<CHUNK>() {
        Some(chunk) if len <= CHUNK => {
            let end = out.len() + len;
            out.extend_from_slice(chunk);
            out.truncate(end);
        }
        _ => out.extend_from_slice(&from[..len]),
    }
}

/// Appends `len` bytes again that stand at `from`.
#[inline(always)]
pub(crate) fn append_again(out: &mut Vec<u8>, from: usize, len: usize) {
    match out[from..].first_chunk::<CHUNK>().copied() {
        Some(chunk) if len <= CHUNK => append_first(out, &chunk, len),
        _ => out.extend_from_within(from..from + len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole() {
        let bytes: Vec<u8> = (1..=100).collect();
        for len in 0..=60 {
            let mut out = vec![0; 3];
            append(&mut out, &bytes[..len]);
            assert_eq!(out, [&[0; 3], &bytes[..len]].concat(), "{len}");
            let mut out = vec![0; 3];
            append_first(&mut out, &bytes, len);
            append_first(&mut out, &bytes[..len], len);
            assert_eq!(out, [&[0; 3], &bytes[..len], &bytes[..len]].concat(), "{len}");
            for from in 0..3 {
                let mut again = out.clone();
                append_again(&mut again, from, len);
                assert_eq!(again, [&out[..], &out[from..from + len]].concat(), "{len} from {from}");
            }
        }
    }
}
