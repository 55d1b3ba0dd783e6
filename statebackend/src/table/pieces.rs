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

impl<T> Pieces<T> {
    /// Items in a full piece: 8 KiB of hashes.
    const PIECE: usize = 1024;

    /// A stack of one item.
    pub(crate) fn from_one(item: T) -> Self {
        Self { full: Vec::new(), last: vec![item] }
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        if self.last.len() == Self::PIECE {
            self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(Self::PIECE)));
        }
        self.last.push(item);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.last.is_empty() {
            self.last = self.full.pop()?;
        }
        self.last.pop()
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
        assert_eq!(pieces.top(1), []);
        assert_eq!(pieces.pop(), None);
    }
}
