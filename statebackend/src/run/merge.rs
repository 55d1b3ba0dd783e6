//! Merging runs entry by entry: the newest of several entries of one place wins, range tombstones hide what is older.
//!
//! [`Merger`] does no I/O: it says which source needs its next window, and hands entries to a [`Sink`]. It is given the
//! runs oldest first; between runs that order decides, never a name or a number in a file.
//!
//! Sources are compared by [`Rank`]s, numbers that nearly always decide; entries are taken apart only where they do not.

use std::cmp::Ordering;

use types::{Error, KeyGroupRange, Result};

use super::{
    block::Home,
    entry::{Entry, EntryKind, decode, is_tombstone, push_head},
    expire::{Expiry, Verdict},
    reader::{PlainBlock, Window},
    sort::{place, prefix},
};

/// Takes merged entries, in order.
pub(crate) trait Sink {
    /// Takes an entry by its encoded bytes.
    fn push(&mut self, home: Home, bytes: &[u8]) -> Result<()>;
    /// Whether the caller should empty it before more comes.
    fn is_full(&self) -> bool;
}

/// Why a merge paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This source needs its next window.
    Feed(usize),
    /// The sink is full.
    Full,
    /// All sources have ended.
    Done,
}

/// Where an entry belongs, in a number: state, key group, the first eight bytes of the key, and in the last byte how long
/// the key is, where these four are all there is to it, or [`Rank::LONG`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rank(u128);

impl Rank {
    /// The entry is not told apart by its rank alone: its key is longer, there is something below the key, or it is a
    /// range tombstone.
    const LONG: u8 = u8::MAX;

    #[inline]
    fn new(home: Home, entry: &Entry<'_>) -> Self {
        let is_plain = entry.sub.is_empty() && entry.kind != EntryKind::Clear;
        Self::of_key(home, entry.key, is_plain)
    }

    /// `is_plain`: there is nothing below the key, and it is no range tombstone.
    #[inline(always)]
    fn of_key(home: Home, key: &[u8], is_plain: bool) -> Self {
        let len = if is_plain && key.len() <= 8 { key.len() as u8 } else { Self::LONG };
        let home = u128::from(home.state) << 16 | u128::from(home.group.0);
        Self(home << 72 | u128::from(prefix(key)) << 8 | u128::from(len))
    }

    #[inline]
    fn home(self) -> Home {
        Home { state: (self.0 >> 88) as u16, group: types::KeyGroup((self.0 >> 72) as u16) }
    }

    /// Compares two entries, as far as their ranks tell.
    #[inline]
    fn cmp(self, other: Self) -> Option<Ordering> {
        let is_long = self.0 as u8 == Self::LONG || other.0 as u8 == Self::LONG;
        // Short keys of one number end in zeros, so the shorter one is the beginning of the longer one.
        if is_long && self.0 >> 8 == other.0 >> 8 { None } else { Some(self.0.cmp(&other.0)) }
    }
}

/// One run on its way through a merge.
struct Source {
    /// Entries of other key groups are passed over.
    groups: KeyGroupRange,
    /// The places of this run's states among those of the merge; entries of the others are passed over.
    states: Vec<Option<u16>>,
    blocks: Box<dyn Iterator<Item = Result<PlainBlock>> + Send>,
    block: Option<PlainBlock>,
    /// Where the last entry of the block belongs in the output. `None` before the first one.
    home: Option<Home>,
    /// Where the entry that comes next lies in the block.
    begin: usize,
    end: usize,
}

/// The entry of a source that comes next, in short.
#[derive(Clone, Copy)]
struct Head {
    rank: Rank,
    source: usize,
}

impl Source {
    /// Moves to the next entry, if it is of the kind that most are. Otherwise [`advance`](Self::advance) tells.
    #[inline(always)]
    fn advance_short(&mut self) -> Option<Rank> {
        let (home, block) = (self.home?, self.block.as_mut()?);
        let begin = block.walk.position();
        let short = block.walk.next_short(&block.plain)?;
        (self.begin, self.end) = (begin, short.end);
        Some(Rank::of_key(home, short.key, true))
    }

    /// Moves to the next entry; `None` if another window is needed first.
    fn advance(&mut self) -> Result<Option<Rank>> {
        loop {
            let Some(block) = &mut self.block else {
                if self.open()? {
                    continue;
                }
                return Ok(None);
            };
            match block.next() {
                Ok(Some((home, entry, bytes))) if self.groups.contains(home.group) => {
                    let Some(state) = self.states[usize::from(home.state)] else { continue };
                    let (len, home) = (bytes.len(), Home { state, group: home.group });
                    let rank = Rank::new(home, &entry);
                    self.home = Some(home);
                    self.end = block.walk.position();
                    self.begin = self.end - len;
                    return Ok(Some(rank));
                }
                Ok(Some(_)) => {}
                Ok(None) => self.block = None,
                Err(error) => return Err(block.blame(error)),
            }
        }
    }

    /// Begins the next block of the window, if there is one.
    #[inline(never)]
    fn open(&mut self) -> Result<bool> {
        (self.block, self.home) = (self.blocks.next().transpose()?, None);
        Ok(self.block.is_some())
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.plain[self.begin..self.end])
    }
}

/// Merges sorted sources.
pub(crate) struct Merger {
    sources: Vec<Source>,
    /// The heads of sources that have one: a heap, the first comes next, of one place the newest.
    heap: Vec<Head>,
    /// Sources whose next window is needed before anything else can be decided.
    hungry: Vec<usize>,
    /// Whether nothing older exists, so that tombstones have nothing left to hide.
    includes_oldest: bool,
    expiry: Expiry,
    cleared: Option<Cleared>,
}

/// The range tombstone over the key that is being merged.
struct Cleared {
    home: Home,
    key: Vec<u8>,
    /// Entries of older sources are hidden.
    by: usize,
}

impl Merger {
    /// `sources` is, for each run, oldest first, the key groups that count and the places of its states in the output.
    pub(crate) fn new(
        sources: impl IntoIterator<Item = (KeyGroupRange, Vec<Option<u16>>)>,
        includes_oldest: bool,
        expiry: Expiry,
    ) -> Self {
        let sources: Vec<Source> = sources
            .into_iter()
            .map(|(groups, states)| Source {
                groups,
                states,
                blocks: Box::new(std::iter::empty()),
                block: None,
                home: None,
                begin: 0,
                end: 0,
            })
            .collect();
        let hungry = (0..sources.len()).rev().collect();
        let heap = Vec::with_capacity(sources.len());
        Self { heap, sources, hungry, includes_oldest, expiry, cleared: None }
    }

    /// Gives a source what it asked for: its next window, or `None` if it has no more.
    pub(crate) fn feed(&mut self, source: usize, window: Option<Window>) -> Result<()> {
        self.hungry.retain(|hungry| *hungry != source);
        if let Some(window) = window {
            self.sources[source].blocks = Box::new(window.into_blocks());
            self.advance(source)?;
        }
        Ok(())
    }

    /// Merges on until something is needed from outside.
    pub(crate) fn run(&mut self, sink: &mut impl Sink) -> Result<Step> {
        loop {
            if let Some(hungry) = self.hungry.last() {
                return Ok(Step::Feed(*hungry));
            }
            if sink.is_full() {
                return Ok(Step::Full);
            }
            let Some(&winner) = self.heap.first() else { return Ok(Step::Done) };
            self.emit(winner, sink)?;
            while let Some(at) = self.older_of_same_place() {
                self.advance_at(at)?;
            }
            self.advance_at(0)?;
        }
    }

    #[inline]
    fn emit(&mut self, winner: Head, sink: &mut impl Sink) -> Result<()> {
        let (home, bytes) = (winner.rank.home(), self.sources[winner.source].bytes());
        if self.cleared.is_none() && !is_tombstone(bytes) && !self.expiry.concerns(home) {
            return sink.push(home, bytes);
        }
        let entry = decode(bytes);
        let cleared = self.cleared.take().filter(|cleared| cleared.home == home && cleared.key == entry.key);
        let is_hidden = cleared.as_ref().is_some_and(|cleared| winner.source < cleared.by);
        // A tombstone is needed only while something older may show: below a range tombstone nothing does.
        let hides_something = !self.includes_oldest && cleared.is_none();
        if !is_hidden && (!entry.is_tombstone() || hides_something) {
            match self.expiry.judge(home, &entry).map_err(|error| self.blame(winner, error))? {
                Verdict::Stays => sink.push(home, bytes)?,
                Verdict::Cut(bytes) => sink.push(home, &bytes)?,
                Verdict::Expired if hides_something && self.expiry.leaves_tombstone(home) => {
                    let mut bytes = Vec::new();
                    push_head(&mut bytes, EntryKind::Delete, entry.key, entry.sub, 0);
                    sink.push(home, &bytes)?;
                }
                Verdict::Expired => {}
            }
        }
        self.cleared = match entry.kind {
            EntryKind::Clear if !is_hidden => {
                Some(Cleared { home, key: entry.key.to_vec(), by: winner.source })
            }
            _ => cleared,
        };
        Ok(())
    }

    /// Says in which file and block an entry is that is damaged.
    #[cold]
    fn blame(&self, head: Head, error: Error) -> Error {
        match &self.sources[head.source].block {
            Some(block) => block.blame(error),
            None => error,
        }
    }

    /// Gives a source without a head its next entry, if it has one at hand.
    fn advance(&mut self, source: usize) -> Result<()> {
        match self.sources[source].advance()? {
            Some(rank) => self.push(Head { rank, source }),
            None => self.hungry.push(source),
        }
        Ok(())
    }

    /// Moves the source whose head stands at `at` to its next entry: at the top, or next to it while the top stays.
    #[inline]
    fn advance_at(&mut self, at: usize) -> Result<()> {
        let source = self.heap[at].source;
        match self.sources[source].advance_short() {
            Some(rank) => self.heap[at].rank = rank,
            None => self.advance_long(at, source)?,
        }
        self.sift_down(at);
        Ok(())
    }

    #[inline(never)]
    fn advance_long(&mut self, at: usize, source: usize) -> Result<()> {
        match self.sources[source].advance()? {
            Some(rank) => self.heap[at].rank = rank,
            None => {
                self.hungry.push(source);
                self.heap.swap_remove(at);
            }
        }
        Ok(())
    }

    /// A head of the same place as the top, if there is one. Those stand next to the top before all others.
    #[inline]
    fn older_of_same_place(&self) -> Option<usize> {
        let top = self.heap.first()?;
        (1..self.heap.len().min(3)).find(|&at| self.cmp(top, &self.heap[at]).is_eq())
    }

    /// Compares the places of two heads.
    #[inline]
    fn cmp(&self, a: &Head, b: &Head) -> Ordering {
        a.rank.cmp(b.rank).unwrap_or_else(|| self.cmp_places(a.source, b.source))
    }

    #[inline(never)]
    fn cmp_places(&self, a: usize, b: usize) -> Ordering {
        let of = |source: usize| decode(self.sources[source].bytes());
        place(&of(a)).cmp(&place(&of(b)))
    }

    /// Whether the head at `a` comes before that at `b`.
    #[inline]
    fn is_before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.heap[a], &self.heap[b]);
        self.cmp(a, b).then_with(|| b.source.cmp(&a.source)).is_lt()
    }

    fn push(&mut self, head: Head) {
        self.heap.push(head);
        let mut at = self.heap.len() - 1;
        while at > 0 && self.is_before(at, (at - 1) / 2) {
            self.heap.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    #[inline]
    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in 2 * at + 1..(2 * at + 3).min(self.heap.len()) {
                if self.is_before(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests;
