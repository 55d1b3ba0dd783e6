//! Until when state with a time to live had expired at a checkpoint: remembered in each manifest as the union list state
//! `expiry_clocks` of each subtask of a keyed operator that has such state. No list state of a user's can have that name. Whoever
//! restores or merges judges by it, at any parallelism.

use types::{Bincode, Codec, ExpiryClocks, Result, Shape};

use super::{ListPart, OperatorSnapshot, Redistribution, SubtaskSnapshot};

const CLOCKS: &str = "expiry_clocks";

impl ListPart {
    /// The part that remembers these.
    ///
    /// # Errors
    /// `Internal` if they cannot be encoded.
    pub fn of_expiry_clocks(clocks: &ExpiryClocks) -> Result<Self> {
        Ok(Self {
            name: CLOCKS.to_owned(),
            redistribution: Redistribution::Union,
            codec: Bincode::ID.to_owned(),
            shape: Shape::Tuple(vec![Shape::U16, Shape::U16, Shape::I64, Shape::I64]).to_bytes(),
            elements: clocks.to_elements()?.iter().collect(),
        })
    }

    /// Whether it says until when state has expired, and is no state of the user's.
    #[must_use]
    pub fn is_expiry_clocks(&self) -> bool {
        self.name == CLOCKS
    }

    /// What it says.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read.
    pub fn expiry_clocks(&self) -> Result<ExpiryClocks> {
        ExpiryClocks::from_elements(self.elements.iter())
    }
}

impl SubtaskSnapshot {
    /// Until when state of its key groups had expired; nothing has where it has no state that expires.
    ///
    /// # Errors
    /// `Corrupt` if that cannot be read.
    pub fn expiry_clocks(&self) -> Result<ExpiryClocks> {
        let part = self.lists.iter().find(|part| part.is_expiry_clocks());
        part.map_or_else(|| Ok(ExpiryClocks::default()), ListPart::expiry_clocks)
    }
}

impl OperatorSnapshot {
    /// Until when state had expired, of all its key groups.
    ///
    /// # Errors
    /// `Corrupt` if that cannot be read.
    pub fn expiry_clocks(&self) -> Result<ExpiryClocks> {
        let lists = self.subtasks.iter().flat_map(|subtask| &subtask.lists);
        let elements = lists.filter(|part| part.is_expiry_clocks()).flat_map(|part| part.elements.iter());
        ExpiryClocks::from_elements(elements)
    }

    /// Whether a list state is a user's, and not something that is remembered in the form of one.
    #[must_use]
    pub fn is_list_state(&self, part: &ListPart) -> bool {
        !self.is_place(part) && !part.is_expiry_clocks()
    }
}
