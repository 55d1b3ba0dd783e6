//! What a table has for the store behind it, and that does not have it yet.
//!
//! Values and entries of maps get here when they leave the table, so that a cell which changes often is written once;
//! chunks of lists when they are drained, since nothing ever replaces them.

use types::{Bincode, Codec, Result};

use crate::{
    Data,
    store::{KeyValueStore, StoreKey, WriteBatch},
    table::slot::Place,
};

/// Buffers of changes that were larger are given back once the store has them.
const KEPT_BYTES: usize = 1 << 20;

/// Changes of one state, in their order.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The rank of the state's name: states are sorted as in a run.
    rank: u16,
    changes: WriteBatch,
}

impl Outgoing {
    pub(crate) fn new(rank: u16) -> Self {
        Self { rank, changes: WriteBatch::default() }
    }

    fn place<'a>(&self, at: Place<'a>, sub: &'a [u8]) -> StoreKey<'a> {
        StoreKey { state: self.rank, group: at.group, key: at.key, sub }
    }

    /// The place holds `value`, or nothing. Adds nothing if the value cannot be encoded.
    pub(crate) fn set<T: Data>(&mut self, at: Place<'_>, sub: &[u8], value: Option<&T>) -> Result<()> {
        let place = self.place(at, sub);
        match value {
            Some(value) => self.changes.put_encoded(place, |out| Bincode::encode(value, out))?,
            None => self.changes.delete_place(place),
        }
        Ok(())
    }

    /// The place holds this encoded value.
    pub(crate) fn put_encoded(&mut self, at: Place<'_>, sub: &[u8], value: &[u8]) {
        let place = self.place(at, sub);
        self.changes.put_place(place, value);
    }

    /// All places below the key are empty.
    pub(crate) fn delete_below(&mut self, at: Place<'_>) {
        self.changes.delete_below(self.rank, at.group, at.key);
    }

    /// Tells the store. After an error all of it is told again.
    pub(crate) fn tell(&mut self, store: &mut dyn KeyValueStore) -> Result<()> {
        if !self.changes.is_empty() {
            store.write(&self.changes)?;
            if self.changes.bytes() > KEPT_BYTES {
                self.changes = WriteBatch::default();
            } else {
                self.changes.clear();
            }
        }
        Ok(())
    }
}

/// What the store has of a place whose cell is in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Another value, or nobody knows.
    #[default]
    Other,
    /// The same value.
    Same,
    /// No value.
    Nothing,
}

impl Stored {
    /// Of a place that the store has just been asked about, or will just have been told of.
    pub(crate) fn of<T>(value: Option<&T>) -> Self {
        if value.is_some() { Self::Same } else { Self::Nothing }
    }

    /// The value in the table is about to change.
    #[inline]
    pub(crate) fn change(&mut self) {
        if *self == Self::Same {
            *self = Self::Other;
        }
    }

    /// Whether the store is to be told that the place holds `value`.
    pub(crate) fn lacks<T>(self, value: Option<&T>) -> bool {
        match self {
            Self::Other => true,
            Self::Same => false,
            Self::Nothing => value.is_some(),
        }
    }
}
