//! Checked blocks in which entries wait. A block stays until the last of its entries is made, so what waits takes no more
//! memory than the state that it is, besides what shares a block with it.

use types::{Error, Result};

use super::index::Spot;
use crate::run::{
    entry::{Entry, decode},
    reader::{PlainBlock, at},
};

/// Bytes that the processor fetches at once.
const LINE: usize = 64;
/// How many lines of an entry are fetched ahead at the most.
const PEEKED: usize = 4;

/// Blocks by their numbers.
#[derive(Default)]
pub(crate) struct Blocks {
    held: Vec<Held>,
    /// The files that they come from.
    files: Vec<String>,
}

/// A block, or what is left of it.
struct Held {
    /// Empty once nothing of it waits.
    plain: Vec<u8>,
    /// How many of its entries wait.
    waiting: u32,
    /// How many lines most entries take.
    lines: u32,
    file: u32,
    offset: u64,
}

impl Blocks {
    /// The number of the next block.
    ///
    /// # Errors
    /// `Internal` if there are more than can be.
    pub(crate) fn next(&self) -> Result<u32> {
        u32::try_from(self.held.len()).ok().filter(|number| *number < Spot::MAX_BLOCKS).ok_or_else(|| {
            Error::internal("a restore of more blocks than one subtask can hold: use more subtasks")
        })
    }

    /// Keeps a block of which so many of its `entries` entries wait.
    pub(crate) fn hold(&mut self, block: PlainBlock, entries: u32, waiting: u32) {
        let (path, offset, plain) = block.into_plain();
        if self.files.last() != Some(&path) {
            self.files.push(path);
        }
        let file = self.files.len() as u32 - 1;
        // An entry that is not at the beginning of a line lies in one more.
        let lines = (plain.len() / entries.max(1) as usize / LINE + 1).min(PEEKED) as u32;
        self.held.push(Held { plain, waiting, lines, file, offset });
    }

    /// A waiting entry.
    #[inline]
    pub(super) fn entry(&self, spot: Spot) -> Entry<'_> {
        decode(&self.held[spot.block()].plain[spot.at as usize..])
    }

    /// Something of each of the lines in which an entry is likely to lie.
    #[inline]
    pub(super) fn peek(&self, spot: Spot) -> u8 {
        let Held { plain, lines, .. } = &self.held[spot.block()];
        let ends = (0..=*lines as usize).map(|line| spot.at as usize + line * LINE);
        ends.map_while(|at| plain.get(at)).fold(0, |sum: u8, byte| sum.wrapping_add(*byte))
    }

    /// An entry waits no longer.
    #[inline]
    pub(super) fn release(&mut self, spot: Spot) {
        let held = &mut self.held[spot.block()];
        held.waiting -= 1;
        if held.waiting == 0 {
            held.plain = Vec::new();
        }
    }

    /// Puts file and place in front of an error about an entry.
    pub(super) fn blame(&self, spot: Spot, error: Error) -> Error {
        let Held { file, offset, .. } = &self.held[spot.block()];
        at(&self.files[*file as usize], *offset)(error)
    }

    /// What they take.
    pub(super) fn bytes(&self) -> usize {
        let plain: usize = self.held.iter().map(|held| held.plain.capacity()).sum();
        plain + self.held.capacity() * size_of::<Held>()
    }
}
