//! Seeded mutations of a file: what disks, bugs and enemies do to bytes. The same seed gives the same mutations on every
//! machine.

use super::CorpusFile;

/// Small seeded numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.number() % bound as u64) as usize }
    }
}

/// Mutates files, with pieces of the other files of their corpus.
pub struct Mutations<'a> {
    random: Random,
    corpus: &'a [CorpusFile],
    longest: usize,
}

/// Numbers that lengths and counts are replaced by: around the ends of what fits, and what would be a lot of memory.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0x7f,
    0xff,
    0xffff,
    1 << 16,
    1 << 20,
    (1 << 24) - 1,
    1 << 28,
    (1 << 30) + 1,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 32,
    1 << 60,
    u64::MAX - 7,
    u64::MAX,
];

impl<'a> Mutations<'a> {
    /// Mutations with this seed; nothing becomes longer than `longest` bytes.
    #[must_use]
    pub fn new(seed: u64, corpus: &'a [CorpusFile], longest: usize) -> Self {
        Self { random: Random(seed), corpus, longest }
    }

    /// Changes `bytes` in one place or a few.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.random.below(3) {
            match self.random.below(12) {
                0..3 => self.flip(bytes),
                3 => self.cut(bytes),
                4 | 5 => self.splice(bytes),
                6..11 => self.announce(bytes),
                _ => self.repeat(bytes),
            }
            bytes.truncate(self.longest);
        }
    }

    /// A place in `bytes`, or right behind them.
    fn place(&mut self, bytes: &[u8]) -> usize {
        self.random.below(bytes.len() + 1)
    }

    /// A piece of `bytes` of at most `most` bytes.
    fn piece(&mut self, bytes: &[u8], most: usize) -> std::ops::Range<usize> {
        let begin = self.place(bytes);
        let len = self.random.below(most.min(bytes.len() - begin) + 1);
        begin..begin + len
    }

    /// Flips some bits.
    fn flip(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.random.below(4) {
            let at = self.random.below(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << self.random.below(8);
            }
        }
    }

    /// Takes a piece away, often the end.
    fn cut(&mut self, bytes: &mut Vec<u8>) {
        let piece = self.piece(bytes, 64);
        if self.random.below(2) == 0 {
            bytes.truncate(piece.start);
        } else {
            bytes.drain(piece);
        }
    }

    /// Puts a piece of this file or another one somewhere, over what is there or between.
    fn splice(&mut self, bytes: &mut Vec<u8>) {
        let from = self.random.below(self.corpus.len() + 1);
        let from = self.corpus.get(from).map_or_else(|| bytes.clone(), |(_, bytes)| bytes.clone());
        let piece = self.piece(&from, 256);
        let at = self.place(bytes);
        let over = if self.random.below(2) == 0 { piece.len().min(bytes.len() - at) } else { 0 };
        bytes.splice(at..at + over, from[piece].iter().copied());
    }

    /// Writes a number as lengths are written: of fixed width, or in one of the two forms of variable width.
    fn announce(&mut self, bytes: &mut Vec<u8>) {
        let number = NUMBERS[self.random.below(NUMBERS.len())];
        let mut written = Vec::new();
        match self.random.below(5) {
            0 => written.extend_from_slice(&(number as u16).to_le_bytes()),
            1 => written.extend_from_slice(&(number as u32).to_le_bytes()),
            2 => written.extend_from_slice(&number.to_le_bytes()),
            3 => {
                let mut rest = number;
                while rest >= 0x80 {
                    written.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                written.push(rest as u8);
            }
            _ => {
                let short = number.to_le_bytes();
                let (tag, len) = [(0xfb, 2), (0xfc, 4), (0xfd, 8)][self.random.below(3)];
                written.push(tag);
                written.extend_from_slice(&short[..len]);
            }
        }
        let at = self.place(bytes);
        let over = match self.random.below(3) {
            0 => 0,
            1 => 1.min(bytes.len() - at),
            _ => written.len().min(bytes.len() - at),
        };
        bytes.splice(at..at + over, written);
    }

    /// Repeats a short piece, sometimes very often: many small elements take the most memory for their bytes.
    fn repeat(&mut self, bytes: &mut Vec<u8>) {
        let piece = self.piece(bytes, 48);
        let piece = bytes[piece].to_vec();
        let most = if self.random.below(8) == 0 { 1 << 18 } else { 1 << 10 };
        let times = self.random.below(most.min(self.longest) / (piece.len() + 1) + 1);
        let at = self.place(bytes);
        // A count in front of them, so that they are taken for elements.
        let mut repeated = Vec::new();
        if self.random.below(2) == 0 {
            repeated.push(0xfc);
            repeated.extend_from_slice(&(times as u32).to_le_bytes());
        }
        repeated.extend(std::iter::repeat_n(piece, times).flatten());
        bytes.splice(at..at, repeated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_mutations_and_most_change_something() {
        let corpus = [("one".to_owned(), (0..200).collect::<Vec<u8>>()), ("two".to_owned(), vec![7; 50])];
        let mutated = |seed| {
            let mut mutations = Mutations::new(seed, &corpus, 4096);
            let mut inputs = Vec::new();
            for _ in 0..300 {
                let mut bytes = corpus[0].1.clone();
                mutations.mutate(&mut bytes);
                assert!(bytes.len() <= 4096);
                inputs.push(bytes);
            }
            inputs
        };
        let first = mutated(1);
        assert_eq!(first, mutated(1));
        assert_ne!(first, mutated(2));
        assert!(first.iter().filter(|bytes| **bytes != corpus[0].1).count() > 280);
        assert!(first.iter().any(|bytes| bytes.len() > 1000), "nothing is repeated often");
    }
}
