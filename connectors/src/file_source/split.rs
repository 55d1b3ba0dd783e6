//! A part of a text file with a position in it, as it stands in checkpoints.

use engine::api::source::Split;
use serde::{Deserialize, Serialize};
use types::Digest;

/// How many bytes before a position are compared when it is opened again.
pub(super) const WINDOW: u64 = 64 << 10;

/// The lines of a file that begin in a range of bytes, and how far they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSplit {
    /// The file, as the source found it.
    pub(super) path: String,
    /// Its length when it was found; what was appended later is not read.
    pub(super) len: u64,
    /// Lines that begin at or after this byte belong to the split.
    pub(super) start: u64,
    /// Lines that begin at or after this byte do not.
    pub(super) end: u64,
    /// Where the next line begins; at `start` it may begin later.
    pub(super) offset: u64,
    /// How many records of that line were emitted.
    pub(super) emitted: u64,
    /// The digest of the [`WINDOW`] before `offset`; `None` before the split is opened for the first time.
    pub(super) window: Option<Digest>,
}

impl FileSplit {
    /// Divides a file into splits of at most `size` bytes, all about equally long; none if it is empty.
    pub(super) fn divide(path: &str, len: u64, size: u64) -> impl Iterator<Item = Self> {
        let parts = len.div_ceil(size);
        let bound = move |part: u64| {
            let at = u128::from(len) * u128::from(part) / u128::from(parts);
            u64::try_from(at).expect("a part of a length is no longer than it")
        };
        (0..parts).map(move |part| {
            let (start, end) = (bound(part), bound(part + 1));
            Self { path: path.to_owned(), len, start, end, offset: start, emitted: 0, window: None }
        })
    }

    /// Where the bytes begin that are compared at `offset`.
    pub(super) fn window_start(offset: u64) -> u64 {
        offset.saturating_sub(WINDOW)
    }

    /// Whether the numbers are in order; a split from a sound checkpoint always is.
    pub(super) fn is_sound(&self) -> bool {
        self.start <= self.end && self.end <= self.len && self.start <= self.offset && self.offset <= self.len
    }
}

impl Split for FileSplit {
    /// Sorts by path, then by place.
    fn id(&self) -> String {
        format!("{}@{:020}", self.path, self.start)
    }

    fn place(&self) -> String {
        format!("{}, byte {}", self.path, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_splits_of_a_file_cover_it_once() {
        for (len, size) in [(0, 1), (1, 1), (10, 3), (10, 10), (10, 11), (7, 1), (u64::MAX, u64::MAX / 3)] {
            let splits: Vec<_> = FileSplit::divide("f", len, size).collect();
            let mut at = 0;
            for split in &splits {
                assert_eq!(split.start, at);
                assert!(split.end > at && split.end - at <= size && split.is_sound(), "{split:?}");
                at = split.end;
            }
            assert_eq!(at, len);
            assert!(splits.is_sorted_by_key(Split::id));
        }
    }
}
