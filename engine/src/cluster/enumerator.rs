//! The splits of one source that no reader has yet. Pure. Every split stands in exactly one place of a checkpoint: here,
//! or in a reader's state; so assignments wait while the coordinator says so.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;
use types::{Bincode, Codec, Error, Result, SubtaskIndex};

use crate::api::{erased::SplitState, source::Boundedness};

/// What to tell a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Assignment {
    /// Read these.
    Splits(Vec<SplitState>),
    /// Nothing more will come.
    NoMore,
}

/// The splits of one source that wait for a reader, and the readers that wait for a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enumerator {
    bounded: bool,
    parallelism: u32,
    unassigned: VecDeque<SplitState>,
    wanting: BTreeSet<SubtaskIndex>,
    /// Unbounded: splits already dealt to a reader but held back.
    dealt: Vec<VecDeque<SplitState>>,
}

impl Enumerator {
    /// The enumerator of a source with these unassigned splits.
    pub(crate) fn new(boundedness: Boundedness, parallelism: u32, unassigned: Vec<SplitState>) -> Self {
        let bounded = boundedness == Boundedness::Bounded;
        let mut dealt = vec![VecDeque::new(); parallelism as usize];
        let mut unassigned = VecDeque::from(unassigned);
        if !bounded {
            // Every reader reads all of its splits at once: deal them out evenly.
            for (index, split) in unassigned.drain(..).enumerate() {
                dealt[index % parallelism as usize].push_back(split);
            }
        }
        Self { bounded, parallelism, unassigned, wanting: BTreeSet::new(), dealt }
    }

    /// A reader has nothing more to read.
    pub(crate) fn on_wanted(&mut self, reader: SubtaskIndex) {
        self.wanting.insert(reader);
    }

    /// What can be assigned now to readers that `may_assign` allows, in order of subtask.
    pub(crate) fn assign(
        &mut self,
        may_assign: impl Fn(SubtaskIndex) -> bool,
    ) -> Vec<(SubtaskIndex, Assignment)> {
        let mut assignments = Vec::new();
        for (index, dealt) in self.dealt.iter_mut().enumerate() {
            let reader = SubtaskIndex(u32::try_from(index).unwrap_or(u32::MAX));
            if !dealt.is_empty() && may_assign(reader) {
                assignments.push((reader, Assignment::Splits(dealt.drain(..).collect())));
            }
        }
        if self.bounded {
            let ready: Vec<_> = self.wanting.iter().copied().filter(|&reader| may_assign(reader)).collect();
            for reader in ready {
                self.wanting.remove(&reader);
                let next = self.unassigned.pop_front();
                let assignment = next.map_or(Assignment::NoMore, |split| Assignment::Splits(vec![split]));
                assignments.push((reader, assignment));
            }
        }
        assignments
    }

    /// The state at this moment: all splits that no reader has.
    ///
    /// # Errors
    /// `Internal` if a split cannot be encoded.
    pub(crate) fn capture(&self) -> Result<Vec<u8>> {
        let all: Vec<&SplitState> = self.unassigned.iter().chain(self.dealt.iter().flatten()).collect();
        Self::encode(&all)
    }

    /// The state of an enumerator that has these splits.
    ///
    /// # Errors
    /// `Internal` if a split cannot be encoded.
    pub(crate) fn encode<S: Serialize>(splits: &[S]) -> Result<Vec<u8>> {
        let mut bytes = vec![1];
        Bincode::encode(splits, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads what [`capture`](Self::capture) wrote.
    ///
    /// # Errors
    /// `Corrupt` for anything else.
    pub(crate) fn restore(bytes: &[u8]) -> Result<Vec<SplitState>> {
        match bytes.split_first() {
            Some((1, body)) => Bincode::decode(body),
            _ => Err(Error::corrupt("the state of a split enumerator is of an unknown version")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(id: u32) -> SplitState {
        SplitState { id: format!("{id:03}"), finished: false, split: vec![1] }
    }

    #[test]
    fn a_held_back_reader_gets_its_split_later_and_no_split_is_in_two_places() -> Result<()> {
        let mut splits = Enumerator::new(Boundedness::Bounded, 2, vec![split(0), split(1)]);
        splits.on_wanted(SubtaskIndex(0));
        splits.on_wanted(SubtaskIndex(1));
        let first = splits.assign(|reader| reader == SubtaskIndex(1));
        assert_eq!(first, [(SubtaskIndex(1), Assignment::Splits(vec![split(0)]))]);
        assert_eq!(Enumerator::restore(&splits.capture()?)?, [split(1)]);
        assert_eq!(splits.assign(|_| true), [(SubtaskIndex(0), Assignment::Splits(vec![split(1)]))]);
        splits.on_wanted(SubtaskIndex(0));
        assert_eq!(splits.assign(|_| true), [(SubtaskIndex(0), Assignment::NoMore)]);
        Ok(())
    }

    #[test]
    fn unbounded_splits_are_dealt_out_at_once() -> Result<()> {
        let mut splits = Enumerator::new(Boundedness::Unbounded, 2, (0..3).map(split).collect());
        assert_eq!(Enumerator::restore(&splits.capture()?)?.len(), 3);
        let dealt = splits.assign(|_| true);
        assert_eq!(dealt[0], (SubtaskIndex(0), Assignment::Splits(vec![split(0), split(2)])));
        assert_eq!(dealt[1], (SubtaskIndex(1), Assignment::Splits(vec![split(1)])));
        assert!(splits.assign(|_| true).is_empty());
        Ok(())
    }
}
