//! A stack that grows in pieces, so that growing it never copies more than one piece: dirty lists are made of it.

/// A stack in pieces of bounded size.
#[derive(Debug)]
pub(crate) struct Pieces<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
}

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Self { full: Vec::new(), last: Vec::new() }
    }
}

/// Empty full-sized pieces, kept for the lists to come: neither a slice that empties lists nor a cut frees or allocates. An
/// allocator may take what is freed for the time to give memory back, which takes milliseconds.
///
/// As many are kept as one interval gave back, and where that becomes less, what is too much is given up by and by, also
/// while nothing comes back at all.
#[derive(Debug)]
pub(crate) struct Spare<T> {
    /// Has room for all that are in use: it grows when a piece is taken, and not where it comes back.
    pieces: Vec<Vec<T>>,
    /// Pieces in use.
    lent: usize,
    /// How many came back since the last turn, and between the two turns before.
    returned: usize,
    wanted: usize,
}

impl<T> Default for Spare<T> {
    fn default() -> Self {
        Self { pieces: Vec::new(), lent: 0, returned: 0, wanted: 0 }
    }
}

impl<T> Spare<T> {
    /// How many pieces a turn gives up at most: it is part of the cut, which must stay short.
    const GIVEN_UP_PER_TURN: usize = 16;

    /// An interval begins. What comes out is to be dropped away from the task.
    pub(crate) fn turn(&mut self) -> impl Iterator<Item = Vec<T>> {
        (self.wanted, self.returned) = (self.returned, 0);
        let least = self.pieces.len().saturating_sub(Self::GIVEN_UP_PER_TURN);
        self.pieces.drain(self.wanted.max(least).min(self.pieces.len())..)
    }

    fn take(&mut self) -> Option<Vec<T>> {
        self.lent += 1;
        self.pieces.reserve(self.lent);
        self.pieces.pop()
    }

    fn give_back(&mut self, piece: Vec<T>) {
        self.lent = self.lent.saturating_sub(usize::from(piece.capacity() > 0));
        if piece.capacity() < Pieces::<T>::PIECE {
            return;
        }
        self.returned += 1;
        self.pieces.push(piece);
    }
}

impl<T> Pieces<T> {
    /// Items in a full piece: 8 KiB of hashes.
    const PIECE: usize = 1024;

    /// A stack of one item.
    pub(crate) fn from_one(item: T) -> Self {
        Self { full: Vec::new(), last: vec![item] }
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        if self.last.len() >= Self::PIECE && self.last.len() == self.last.capacity() {
            self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(Self::PIECE)));
        }
        self.last.push(item);
    }

    /// Pushes; a piece that is needed is taken from `spare` if there is one.
    #[inline]
    pub(crate) fn push_with(&mut self, item: T, spare: &mut Spare<T>) {
        if self.last.len() == self.last.capacity() {
            self.make_room(spare);
        }
        self.last.push(item);
    }

    #[inline(never)]
    fn make_room(&mut self, spare: &mut Spare<T>) {
        if self.last.capacity() == 0 {
            // Where there is none, the first piece grows: most lists are short.
            self.last = spare.take().unwrap_or_default();
        } else if self.last.len() >= Self::PIECE {
            let next = spare.take().unwrap_or_else(|| Vec::with_capacity(Self::PIECE));
            self.full.push(std::mem::replace(&mut self.last, next));
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_with(&mut Spare::default())
    }

    /// Pops; a piece that is empty then goes to `spare`.
    #[inline]
    pub(crate) fn pop_with(&mut self, spare: &mut Spare<T>) -> Option<T> {
        if self.last.is_empty() {
            let empty = std::mem::replace(&mut self.last, self.full.pop().unwrap_or_default());
            spare.give_back(empty);
        }
        self.last.pop()
    }

    /// Forgets all items; its pieces go to `spare`.
    pub(crate) fn give_back(self, spare: &mut Spare<T>) {
        for mut piece in self.full.into_iter().chain([self.last]) {
            piece.clear();
            spare.give_back(piece);
        }
    }

    /// The items on top, `count` at most; fewer where a piece ends.
    pub(crate) fn top(&self, count: usize) -> &[T] {
        let piece = if self.last.is_empty() { self.full.last().unwrap_or(&self.last) } else { &self.last };
        &piece[piece.len().saturating_sub(count)..]
    }

    pub(crate) fn len(&self) -> usize {
        self.full.len() * Self::PIECE + self.last.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_everything_across_pieces() {
        let mut pieces = Pieces::default();
        for item in 0..3000 {
            pieces.push(item);
            assert_eq!(pieces.len(), item + 1);
        }
        for item in (0..3000).rev() {
            assert_eq!(pieces.top(1), [item]);
            assert!(pieces.top(70).len() <= 70);
            assert_eq!(pieces.pop(), Some(item));
        }
        assert_eq!(pieces.len(), 0);
        assert!(pieces.top(1).is_empty());
        assert_eq!(pieces.pop(), None);
    }

    #[test]
    fn empty_pieces_serve_again_and_go_by_and_by() {
        let mut spare = Spare::default();
        let fill = |count: usize, spare: &mut Spare<usize>| {
            let mut pieces = Pieces::default();
            (0..count).for_each(|item| pieces.push_with(item, spare));
            let left = spare.pieces.len();
            assert!((0..count).rev().all(|item| pieces.pop_with(spare) == Some(item)));
            assert_eq!(pieces.pop_with(spare), None);
            left
        };
        fill(10 * 1024, &mut spare);
        assert_eq!(spare.pieces.len(), 10);
        assert_eq!(spare.turn().count(), 0);
        assert_eq!(fill(10 * 1024, &mut spare), 0, "all serve again");
        assert_eq!(spare.pieces.len(), 10);
        assert!(spare.pieces.iter().all(|piece| piece.is_empty() && piece.capacity() == 1024));
        // Fewer are needed: those of the interval before stay until another one has shown it.
        assert_eq!(spare.turn().count(), 0);
        fill(1024, &mut spare);
        assert_eq!(spare.pieces.len(), 10);
        assert_eq!(spare.turn().count(), 9, "they are given out, and not dropped here");
        fill(1024, &mut spare);
        assert_eq!((spare.turn().count(), spare.pieces.len()), (0, 1));
    }

    #[test]
    fn a_piece_that_comes_back_makes_nothing_grow() {
        let mut spare = Spare::default();
        let lists = [(); 3].map(|()| {
            let mut pieces = Pieces::default();
            (0..7 * 1024).for_each(|item| pieces.push_with(item, &mut spare));
            pieces
        });
        let room = spare.pieces.capacity();
        for mut pieces in lists {
            while pieces.pop_with(&mut spare).is_some() {}
        }
        assert_eq!((spare.pieces.len(), spare.pieces.capacity(), spare.lent), (21, room, 0));
    }

    #[test]
    fn what_is_forgotten_serves_again_and_is_empty() {
        let mut spare = Spare::default();
        let mut pieces = Pieces::default();
        (0..3 * 1024 + 10).for_each(|item| pieces.push_with(item, &mut spare));
        pieces.give_back(&mut spare);
        // The last piece was a full-sized one, too, since the first had grown to it.
        assert_eq!(spare.pieces.len(), 4);
        assert!(spare.pieces.iter().all(|piece| piece.is_empty() && piece.capacity() == 1024));
    }

    #[test]
    fn a_state_that_went_quiet_keeps_no_pieces() {
        let mut spare = Spare::default();
        let mut pieces = Pieces::default();
        (0..40 * 1024).for_each(|item| pieces.push_with(item, &mut spare));
        while pieces.pop_with(&mut spare).is_some() {}
        let kept = [(); 5].map(|_| {
            drop(spare.turn());
            spare.pieces.len()
        });
        assert_eq!(kept, [40, 24, 8, 0, 0]);
    }
}
