//! Until when state with a time to live had expired at a checkpoint: remembered in each manifest as the union list
//! state `expiry_clocks` of each subtask of a keyed operator that has such state, and of no other: an invariant, since
//! without it what has expired would be back. No list state of a user's can have that name. Whoever restores or merges
//! judges by it, at any parallelism.

use types::{Bincode, Codec, ExpiryClocks, Result, Shape, TimeDomain};

use super::{ListPart, OperatorSnapshot, Redistribution, StateDescription, SubtaskSnapshot};

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

impl StateDescription {
    /// Whether its entries have a time to live: its kind says so.
    #[must_use]
    pub fn expires(&self) -> bool {
        let expiry = self.kind.split_once(", ").and_then(|(_, expiry)| expiry.strip_suffix(" ttl"));
        expiry.is_some_and(|domain| {
            [TimeDomain::EventTime, TimeDomain::ProcessingTime].iter().any(|it| it.name() == domain)
        })
    }
}

impl SubtaskSnapshot {
    /// What is wrong with what it says about expiry, if its operator has state that expires, or has none.
    pub(super) fn clocks_problem(&self, expires: bool) -> Option<&'static str> {
        let part = self.lists.iter().find(|part| part.is_expiry_clocks());
        match (part, expires) {
            (None, false) => None,
            (None, true) => Some("it does not say until when its state had expired"),
            (Some(_), false) => Some("it says until when state had expired, and has none that does"),
            (Some(part), true) => match ExpiryClocks::are_of(part.elements.iter(), self.groups) {
                Ok(true) => None,
                Ok(false) => Some(
                    "it does not say of each of its key groups, and of these alone, until when state had expired",
                ),
                Err(_) => Some("until when its state had expired cannot be read"),
            },
        }
    }

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
