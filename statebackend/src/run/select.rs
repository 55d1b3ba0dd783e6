//! The part of an operator's state that a reader wants, and which blocks of a run may hold some of it: so that one key of a
//! large snapshot costs a block of each run.

use types::{KeyGroup, KeyGroupRange};

use super::index::{BlockMeta, MAX_FIRST_KEY};

/// One state, or some keys of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The state's name.
    pub state: String,
    /// The key groups.
    pub groups: KeyGroupRange,
    /// The keys in them.
    pub keys: KeySelection,
}

/// Some keys, by their ordered bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySelection {
    /// Every key.
    All,
    /// This one.
    One(Vec<u8>),
    /// Those whose bytes begin with these.
    Beginning(Vec<u8>),
}

impl KeySelection {
    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => key == one,
            Self::Beginning(beginning) => key.starts_with(beginning),
        }
    }

    /// Whether all of them are less than `first`, or than all that begins with it.
    fn end_before(&self, first: &[u8]) -> bool {
        match self {
            Self::All => false,
            Self::One(one) => one.as_slice() < first,
            Self::Beginning(beginning) => beginning.as_slice() < first && !first.starts_with(beginning),
        }
    }

    /// Whether all of them are greater than `last`; where the index cut that off, than all that begins with it.
    fn begin_after(&self, last: &[u8]) -> bool {
        match self {
            Self::All => false,
            Self::One(least) | Self::Beginning(least) => {
                least.as_slice() > last && !(last.len() == MAX_FIRST_KEY && least.starts_with(last))
            }
        }
    }
}

impl Selection {
    /// Whether block `number` may hold entries of it, where its state stands at place `state` of the run.
    pub(crate) fn may_be_in(&self, state: u16, blocks: &[BlockMeta], number: usize) -> bool {
        let first = &blocks[number];
        // The block ends at the place where the next one begins, or before it: entries of one key may fill several.
        let next = blocks.get(number + 1);
        let begin = (first.state, first.group);
        let end = next.map(|next| (next.state, next.group));
        let wants = |group: KeyGroup| {
            let home = (state, group);
            if home < begin || end.is_some_and(|end| home > end) {
                return false;
            }
            let is_before = home == begin && self.keys.end_before(&first.first_key);
            let is_behind =
                end == Some(home) && next.is_some_and(|next| self.keys.begin_after(&next.first_key));
            !is_before && !is_behind
        };
        // Of the groups that lie wholly inside of the block one is as good as the other.
        let own = |group: u16| if first.state == state { group.max(first.group.0) } else { group };
        let candidates =
            [self.groups.start, own(self.groups.start), own(self.groups.start).saturating_add(1)];
        let last = next.filter(|next| next.state == state).map(|next| next.group.0);
        let mut candidates = candidates.into_iter().chain(last).map(KeyGroup);
        candidates.any(|group| self.groups.contains(group) && wants(group))
    }
}
