//! Where a source reads, or a sink writes: remembered in each manifest beside the state that means nothing elsewhere. It
//! is the list state `place`, of one element, of the first subtask of an operator of kind `source` or `sink`. Whoever
//! restores compares it before anything is started.

use types::{Bincode, Codec, Result, Shape};

use super::{ListPart, OperatorSnapshot, Redistribution};

const PLACE: &str = "place";
/// The kinds of operators that have a place; any other may have a list state of that name.
const KINDS: [&str; 2] = ["source", "sink"];

impl ListPart {
    /// The part that remembers this place.
    ///
    /// # Errors
    /// `Internal` if a text cannot be encoded.
    pub fn of_place(place: &str) -> Result<Self> {
        let mut element = Vec::new();
        Bincode::encode(place, &mut element)?;
        Ok(Self {
            name: PLACE.to_owned(),
            redistribution: Redistribution::Union,
            codec: Bincode::ID.to_owned(),
            shape: Shape::Str.to_bytes(),
            elements: [element].into_iter().collect(),
        })
    }
}

impl OperatorSnapshot {
    /// Whether a list state is what remembers this operator's place: no task gets it back.
    #[must_use]
    pub fn is_place(&self, part: &ListPart) -> bool {
        part.name == PLACE && KINDS.contains(&self.kind.as_str())
    }

    /// Where it read or wrote; `None` if it has no place, or the snapshot is from before places were remembered.
    ///
    /// # Errors
    /// `Corrupt` if it cannot be read.
    pub fn place(&self) -> Result<Option<String>> {
        let parts = self.subtasks.iter().flat_map(|subtask| &subtask.lists);
        let element = parts.filter(|part| self.is_place(part)).flat_map(|part| part.elements.iter()).next();
        let decode = |element: &[u8]| {
            let place = Bincode::decode(element);
            place.map_err(|error| error.context(format!("the place of {} {}", self.kind, self.uid)))
        };
        element.map(decode).transpose()
    }
}
