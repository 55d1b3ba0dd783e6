//! Two sides of one state side by side: a merge of two sorted streams, which holds one entry of each.
//!
//! What is compared is a *place*: a key of a state with one value per key, an entry of a map, a time of timers, and of
//! a list the key with all of its elements, so that how a list was cut into chunks is not seen.

use std::cmp::Ordering;

use statebackend::{LiveBatch, StateKind, StateSpec};
use types::{DigestBuilder, KeyGroup, Result, Timestamp};

use crate::state::{self, StateReader};

/// How many places are on one side only, on both with different values, and on both alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) changed: u64,
    pub(crate) unchanged: u64,
}

impl Tally {
    pub(crate) fn differs(&self) -> bool {
        self.added + self.removed + self.changed > 0
    }
}

/// What differs at a place. The second side is the later one.
#[derive(Clone, Copy)]
pub(crate) enum Difference<'a> {
    Added(&'a Item),
    Removed(&'a Item),
    Changed(&'a Item, &'a Item),
}

/// Whether a comparison goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Go,
    Stop,
}

/// Compares two sides; `visit` gets each difference, in order. A side that is not there is empty.
///
/// # Errors
/// Those of the readers, and of `visit`.
pub(crate) async fn compare(
    before: &mut Side<'_>,
    after: &mut Side<'_>,
    mut visit: impl FnMut(Difference<'_>) -> Result<Next>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    before.advance().await?;
    after.advance().await?;
    loop {
        let (difference, counter) = match (before.item(), after.item()) {
            (None, None) => return Ok(tally),
            (Some(old), None) => (Some(Difference::Removed(old)), &mut tally.removed),
            (None, Some(new)) => (Some(Difference::Added(new)), &mut tally.added),
            (Some(old), Some(new)) => match old.place().cmp(&new.place()) {
                Ordering::Less => (Some(Difference::Removed(old)), &mut tally.removed),
                Ordering::Greater => (Some(Difference::Added(new)), &mut tally.added),
                Ordering::Equal if old.value == new.value => (None, &mut tally.unchanged),
                Ordering::Equal => (Some(Difference::Changed(old, new)), &mut tally.changed),
            },
        };
        *counter += 1;
        let (has_old, has_new) = match difference {
            Some(Difference::Removed(_)) => (true, false),
            Some(Difference::Added(_)) => (false, true),
            Some(Difference::Changed(..)) | None => (true, true),
        };
        if let Some(difference) = difference
            && visit(difference)? == Next::Stop
        {
            return Ok(tally);
        }
        if has_old {
            before.advance().await?;
        }
        if has_new {
            after.advance().await?;
        }
    }
}

/// What stands at a place.
#[derive(Default)]
pub(crate) struct Item {
    group: u16,
    pub(crate) key: Vec<u8>,
    /// Below the key; empty of a list.
    pub(crate) sub: Vec<u8>,
    /// The value as it is stored; of a list the digest of its elements. With the deadline, where it has one: what lives
    /// longer has changed.
    pub(crate) value: Vec<u8>,
    /// Until when it lives, if it expires; of a list, until when anything of it does.
    pub(crate) expires: Option<Timestamp>,
    /// Of a list.
    pub(crate) elements: u64,
    /// What the run says of the state.
    pub(crate) spec: Option<StateSpec>,
}

impl Item {
    fn place(&self) -> (u16, &[u8], &[u8]) {
        (self.group, &self.key, &self.sub)
    }
}

/// One side of a comparison, with the entry that comes next.
pub(crate) struct Side<'a> {
    reader: Option<StateReader<'a>>,
    batch: Option<LiveBatch>,
    /// The place in the batch.
    at: usize,
    item: Item,
    /// Whether `item` holds anything.
    has_item: bool,
    /// Called when more was read.
    progress: &'a dyn Fn(u64),
    told: u64,
}

impl<'a> Side<'a> {
    /// `progress` is told how many bytes more were read.
    pub(crate) fn new(reader: Option<StateReader<'a>>, progress: &'a dyn Fn(u64)) -> Self {
        let item = Item::default();
        Self { reader, batch: None, at: 0, item, has_item: false, progress, told: 0 }
    }

    fn item(&self) -> Option<&Item> {
        self.has_item.then_some(&self.item)
    }

    /// Moves to the next place.
    async fn advance(&mut self) -> Result<()> {
        self.has_item = false;
        let mut list: Option<DigestBuilder> = None;
        loop {
            if self.take(&mut list)? {
                break;
            }
            let Some(reader) = &mut self.reader else { break };
            self.batch = reader.next().await?;
            self.at = 0;
            let (done, _) = reader.progress();
            (self.progress)(done - self.told);
            self.told = done;
            if self.batch.is_none() {
                self.reader = None;
            }
        }
        if let Some(digest) = list {
            self.item.value.clear();
            self.item.value.extend_from_slice(&digest.finish().0.to_le_bytes());
        }
        Ok(())
    }

    /// Takes what the batch has of the next place. Whether that is all of it: of a list there may be more in the next
    /// batch.
    fn take(&mut self, list: &mut Option<DigestBuilder>) -> Result<bool> {
        while let Some(live) = self.batch.as_ref().and_then(|batch| batch.get(self.at)) {
            let KeyGroup(group) = live.group;
            let is_list = live.state.kind == StateKind::List;
            if self.has_item && (self.item.group != group || self.item.key != live.entry.key) {
                return Ok(true);
            }
            if !self.has_item {
                self.has_item = true;
                self.item.group = group;
                self.item.elements = 0;
                self.item.expires = None;
                set(&mut self.item.key, live.entry.key);
                set(&mut self.item.sub, if is_list { &[] } else { live.entry.sub });
                if self.item.spec.is_none() {
                    self.item.spec = Some(live.state.clone());
                }
            }
            self.at += 1;
            if !is_list {
                set(&mut self.item.value, live.entry.value);
                self.item.expires = state::deadline(live.state, live.entry.value)?;
                return Ok(true);
            }
            let digest = list.get_or_insert_with(DigestBuilder::default);
            for element in live.values() {
                let element = element?;
                digest.update(&(element.len() as u64).to_le_bytes());
                digest.update(element);
                self.item.elements += 1;
                self.item.expires = self.item.expires.max(state::deadline(live.state, element)?);
            }
        }
        Ok(false)
    }
}

fn set(to: &mut Vec<u8>, from: &[u8]) {
    to.clear();
    to.extend_from_slice(from);
}
