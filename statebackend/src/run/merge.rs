//! Merging runs entry by entry: the newest of several entries of one place wins, range tombstones hide what is older.
//!
//! [`Merger`] does no I/O: it says which source needs its next window, and hands entries to a [`Sink`]. It is given the
//! runs oldest first; between runs that order decides, never a name or a number in a file.

use types::{KeyGroupRange, Result};

use super::{
    block::Home,
    entry::{Entry, EntryKind, decode},
    reader::{PlainBlock, Window},
    sort::{place, prefix},
};

/// Takes merged entries, in order.
pub(crate) trait Sink {
    /// Takes an entry and its encoded bytes.
    fn push(&mut self, home: Home, entry: &Entry<'_>, bytes: &[u8]) -> Result<()>;
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

/// One run on its way through a merge.
struct Source {
    /// Entries of other key groups are passed over.
    groups: KeyGroupRange,
    /// The places of this run's states among those of the merge.
    states: Vec<u16>,
    blocks: Box<dyn Iterator<Item = Result<PlainBlock>> + Send>,
    block: Option<PlainBlock>,
    head: Head,
}

/// The entry of a source that comes next, in short: compared often, decoded rarely.
#[derive(Clone, Copy, Default)]
struct Head {
    home: Option<Home>,
    prefix: u64,
    begin: usize,
    end: usize,
}

impl Source {
    /// Moves to the next entry; `false` if another window is needed first.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let Some(block) = &mut self.block else {
                let Some(block) = self.blocks.next() else { return Ok(false) };
                self.block = Some(block?);
                continue;
            };
            match block.next() {
                Ok(Some((home, entry, bytes))) if self.groups.contains(home.group) => {
                    let (prefix, len) = (prefix(entry.key), bytes.len());
                    let state = self.states[usize::from(home.state)];
                    let end = block.walk.position();
                    let home = Some(Home { state, group: home.group });
                    self.head = Head { home, prefix, begin: end - len, end };
                    return Ok(true);
                }
                Ok(Some(_)) => {}
                Ok(None) => self.block = None,
                Err(error) => return Err(block.blame(error)),
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.plain[self.head.begin..self.head.end])
    }

    fn entry(&self) -> Entry<'_> {
        decode(self.bytes())
    }
}

/// Merges sorted sources.
pub(crate) struct Merger {
    sources: Vec<Source>,
    /// Sources that have a head; the first one's comes next.
    heap: Vec<usize>,
    /// Sources whose next window is needed before anything else can be decided.
    hungry: Vec<usize>,
    /// Whether nothing older exists, so that tombstones have nothing left to hide.
    includes_oldest: bool,
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
        sources: impl IntoIterator<Item = (KeyGroupRange, Vec<u16>)>,
        includes_oldest: bool,
    ) -> Self {
        let sources: Vec<Source> = sources
            .into_iter()
            .map(|(groups, states)| Source {
                groups,
                states,
                blocks: Box::new(std::iter::empty()),
                block: None,
                head: Head::default(),
            })
            .collect();
        let hungry = (0..sources.len()).rev().collect();
        Self { heap: Vec::with_capacity(sources.len()), sources, hungry, includes_oldest, cleared: None }
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
            let Some(winner) = self.pop() else { return Ok(Step::Done) };
            while let Some(&loser) = self.heap.first() {
                if !self.is_same_place(winner, loser) {
                    break;
                }
                self.pop();
                self.advance(loser)?;
            }
            self.emit(winner, sink)?;
            self.advance(winner)?;
        }
    }

    fn emit(&mut self, winner: usize, sink: &mut impl Sink) -> Result<()> {
        let source = &self.sources[winner];
        let entry = source.entry();
        let Some(home) = source.head.home else { return Ok(()) };
        let cleared_by =
            self.cleared.as_ref().filter(|cleared| cleared.home == home && cleared.key == entry.key);
        if cleared_by.is_some_and(|cleared| winner < cleared.by) {
            return Ok(());
        }
        // A tombstone is needed only while something older may show: below a range tombstone nothing does.
        let needless = self.includes_oldest || cleared_by.is_some();
        if !(entry.is_tombstone() && needless) {
            sink.push(home, &entry, source.bytes())?;
        }
        if entry.kind == EntryKind::Clear {
            self.cleared = Some(Cleared { home, key: entry.key.to_vec(), by: winner });
        }
        Ok(())
    }

    /// Moves a source that is not in the heap to its next entry.
    fn advance(&mut self, source: usize) -> Result<()> {
        if self.sources[source].advance()? {
            self.push(source);
        } else {
            self.hungry.push(source);
        }
        Ok(())
    }

    fn is_same_place(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.sources[a], &self.sources[b]);
        a.head.home == b.head.home && a.head.prefix == b.head.prefix && place(&a.entry()) == place(&b.entry())
    }

    /// Whether the head of `a` comes before that of `b`; of one place, the newer source's does.
    fn is_before(&self, a: usize, b: usize) -> bool {
        let (first, second) = (&self.sources[a], &self.sources[b]);
        let short = (first.head.home, first.head.prefix).cmp(&(second.head.home, second.head.prefix));
        short.then_with(|| place(&first.entry()).cmp(&place(&second.entry()))).then_with(|| b.cmp(&a)).is_lt()
    }

    fn push(&mut self, source: usize) {
        self.heap.push(source);
        let mut at = self.heap.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if !self.is_before(self.heap[at], self.heap[parent]) {
                break;
            }
            self.heap.swap(at, parent);
            at = parent;
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let last = self.heap.len().checked_sub(1)?;
        self.heap.swap(0, last);
        let top = self.heap.pop();
        let mut at = 0;
        loop {
            let children = (2 * at + 1)..(2 * at + 3).min(self.heap.len());
            let least =
                children.reduce(|a, b| if self.is_before(self.heap[b], self.heap[a]) { b } else { a });
            match least {
                Some(child) if self.is_before(self.heap[child], self.heap[at]) => {
                    self.heap.swap(child, at);
                    at = child;
                }
                _ => return top,
            }
        }
    }
}
