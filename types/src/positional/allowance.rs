//! How much memory a value may take while it is read, judged by the bytes that are there: an announced length alone never
//! makes room. Called by the reader for each list, element and text.
//!
//! serde makes room for as many elements as the reader hints at, up to [`AHEAD`] bytes, and for more as they come. What
//! lists take inside of each other adds up, so large hints are given only as far as the allowance reaches.

use std::borrow::Cow;

use super::Failure;

/// The most bytes that serde makes room for at once on the word of a hint.
const AHEAD: usize = 1 << 20;
/// So many elements are hinted at whatever is left: real lists are mostly shorter.
const FEW: usize = 64;
/// What an element is taken for before one was seen, in bytes. Those of files are smaller.
const ELEMENT: usize = 192;
/// What a buffer takes that grows as elements come: itself, and another one of twice its length while it moves there.
const GROWING: usize = 3;
/// What is allowed whatever the length, in bytes.
const FREE: usize = 768 << 10;

/// The memory that may still be taken.
pub(crate) struct Allowance {
    left: usize,
    /// Whether more is an error; otherwise only hints become smaller.
    is_bound: bool,
}

/// The room made for a list before its elements are read.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    pub(crate) elements: usize,
    /// What of the allowance is kept back for it, less what its elements have taken.
    kept: usize,
}

impl Allowance {
    /// For a value of `len` bytes, of a type that alone says how much an element takes.
    #[inline]
    pub(crate) fn of_value(len: usize) -> Self {
        Self { left: len.saturating_mul(4).saturating_add(FREE), is_bound: false }
    }

    /// For a file of `len` bytes, of a type of ours: three and a half times its length and 768 KiB. What then checks it has
    /// the rest, up to four times and 1 MiB.
    pub(crate) fn of_file(len: usize) -> Self {
        Self { left: (len / 2).saturating_mul(7).saturating_add(FREE), is_bound: true }
    }

    /// For a value of `len` bytes of which every part is kept apart, however small: five hundred times its length, since a
    /// part of one byte is a value of its own then, and 768 KiB.
    pub(crate) fn of_parts(len: usize) -> Self {
        Self { left: len.saturating_mul(512).saturating_add(FREE), is_bound: true }
    }

    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Failure> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None if self.is_bound => return Err(exceeded()),
            None => self.left = 0,
        }
        Ok(())
    }

    /// Text or bytes that are copied as they are.
    #[inline]
    pub(super) fn copy<'de>(&mut self, bytes: Cow<'de, [u8]>) -> Result<Cow<'de, [u8]>, Failure> {
        self.take(bytes.len()).map(|()| bytes)
    }

    /// Bytes that are gathered with others in a buffer that grows.
    #[inline]
    pub(super) fn gather<'de>(&mut self, bytes: Cow<'de, [u8]>) -> Result<Cow<'de, [u8]>, Failure> {
        self.take(GROWING * (bytes.len() + 1)).map(|()| bytes)
    }

    /// The room to be made for a list of up to `elements`.
    #[inline]
    pub(super) fn make_room(&mut self, elements: usize) -> Room {
        if elements <= FEW {
            return Room { elements, kept: 0 };
        }
        let kept = elements.saturating_mul(ELEMENT).min(AHEAD);
        let (elements, kept) = match self.left.checked_sub(kept) {
            Some(_) => (elements, kept),
            None => (FEW.max(self.left / ELEMENT), self.left),
        };
        self.left -= kept;
        Room { elements, kept }
    }

    /// The `seen`th element of a list, counted from 0, of `size` bytes.
    #[inline]
    pub(super) fn element(
        &mut self,
        room: &mut Option<Room>,
        seen: usize,
        size: usize,
    ) -> Result<(), Failure> {
        let growing = size.saturating_mul(GROWING);
        let Some(room) = room else { return self.take(growing) };
        let fits = room.elements.min(AHEAD / size.max(1));
        if seen >= fits {
            // The first that does not fit has all others move, which were counted once.
            let moved = if seen == fits { size.saturating_mul((GROWING - 1) * seen) } else { 0 };
            self.left = self.left.saturating_add(std::mem::take(&mut room.kept));
            return self.take(growing.saturating_add(moved));
        }
        let from_kept = size.min(room.kept);
        room.kept -= from_kept;
        self.take(size - from_kept)
    }

    /// The list is whole: its elements are counted by themselves.
    #[inline]
    pub(super) fn give_back(&mut self, room: Option<Room>) {
        self.left = self.left.saturating_add(room.map_or(0, |room| room.kept));
    }
}

#[cold]
fn exceeded() -> Failure {
    Failure::corrupt("what it holds would take far more memory than its length justifies")
}
