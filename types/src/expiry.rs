//! Until when state has expired, for each key group. Kept in every checkpoint of an operator that has state with a time to
//! live; whoever restores, merges or reads such state judges by it, and never by less: what has expired once stays so.

use serde::{Deserialize, Serialize};

use crate::{Bincode, Codec, Error, KeyGroup, KeyGroupRange, Result, Timestamp};

/// Which time it is that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TimeDomain {
    /// That of the records, as far as the watermark says.
    EventTime,
    /// That of the clock on the wall.
    ProcessingTime,
}

impl TimeDomain {
    /// The name, for people and manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EventTime => "event-time",
            Self::ProcessingTime => "processing-time",
        }
    }
}

/// A time of each domain. State with a deadline up to it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ExpiryTimes {
    /// In event time.
    pub event: Timestamp,
    /// In processing time.
    pub processing: Timestamp,
}

impl ExpiryTimes {
    /// Nothing has expired.
    pub const BEGINNING: Self = Self { event: Timestamp::MIN, processing: Timestamp::MIN };

    /// That of a domain.
    #[must_use]
    pub const fn of(self, domain: TimeDomain) -> Timestamp {
        match domain {
            TimeDomain::EventTime => self.event,
            TimeDomain::ProcessingTime => self.processing,
        }
    }

    /// The later ones of both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { event: self.event.max(other.event), processing: self.processing.max(other.processing) }
    }
}

/// The times of key groups. Of those that it does not name, nothing has expired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiryClocks {
    /// Ascending and disjoint, neighbours of the same times joined.
    ranges: Vec<(KeyGroupRange, ExpiryTimes)>,
}

/// Nothing has, in any key group.
pub static NOTHING_EXPIRED: ExpiryClocks = ExpiryClocks { ranges: Vec::new() };

impl ExpiryClocks {
    /// Those of the key groups from `first` on.
    #[must_use]
    pub fn new(first: u16, times: impl IntoIterator<Item = ExpiryTimes>) -> Self {
        let mut ranges: Vec<(KeyGroupRange, ExpiryTimes)> = Vec::new();
        for (group, times) in (first..=u16::MAX).zip(times) {
            match ranges.last_mut() {
                Some((range, same)) if *same == times => range.end = group + 1,
                _ => ranges.push((KeyGroupRange { start: group, end: group + 1 }, times)),
            }
        }
        Self { ranges }
    }

    /// The times of a key group.
    #[must_use]
    pub fn at(&self, group: KeyGroup) -> ExpiryTimes {
        let after = self.ranges.partition_point(|(range, _)| range.start <= group.0);
        let found = after.checked_sub(1).map(|at| self.ranges[at]).filter(|(range, _)| range.contains(group));
        found.map_or(ExpiryTimes::BEGINNING, |(_, times)| times)
    }

    /// The latest times of any key group.
    #[must_use]
    pub fn latest(&self) -> ExpiryTimes {
        self.ranges.iter().fold(ExpiryTimes::BEGINNING, |latest, (_, times)| latest.max(*times))
    }

    /// Each range as bytes.
    ///
    /// # Errors
    /// `Internal` if a number cannot be encoded.
    pub fn to_elements(&self) -> Result<Vec<Vec<u8>>> {
        let encode = |(range, times): &(KeyGroupRange, ExpiryTimes)| {
            let mut bytes = Vec::new();
            Bincode::encode(&(range.start, range.end, times.event, times.processing), &mut bytes)?;
            Ok(bytes)
        };
        self.ranges.iter().map(encode).collect()
    }

    /// Whether elements, as [`to_elements`](Self::to_elements) writes them, are about each of these key groups and no other.
    /// Keeps none of them.
    ///
    /// # Errors
    /// `Corrupt` if an element cannot be read.
    pub fn are_of<'a>(elements: impl IntoIterator<Item = &'a [u8]>, groups: KeyGroupRange) -> Result<bool> {
        let mut next = groups.start;
        for element in elements {
            let (start, end, _, _): (u16, u16, Timestamp, Timestamp) = Bincode::decode(element)?;
            if start != next || end <= start {
                return Ok(false);
            }
            next = end;
        }
        Ok(next == groups.end)
    }

    /// Reads what [`to_elements`](Self::to_elements) wrote, of one subtask or of several.
    ///
    /// # Errors
    /// `Corrupt` if an element cannot be read, or two are about one key group.
    pub fn from_elements<'a>(elements: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let decode = |element| -> Result<(KeyGroupRange, ExpiryTimes)> {
            let (start, end, event, processing) = Bincode::decode(element)?;
            Ok((KeyGroupRange { start, end }, ExpiryTimes { event, processing }))
        };
        let mut ranges = elements.into_iter().map(decode).collect::<Result<Vec<_>>>()?;
        ranges.sort_by_key(|(range, _)| range.start);
        let is_disjoint = ranges.is_sorted_by(|(a, _), (b, _)| a.end <= b.start);
        if !is_disjoint || ranges.iter().any(|(range, _)| range.is_empty()) {
            return Err(Error::corrupt(
                "until when state has expired is said twice of a key group, or of none",
            ));
        }
        Ok(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(event: i64, processing: i64) -> ExpiryTimes {
        ExpiryTimes { event: Timestamp(event), processing: Timestamp(processing) }
    }

    #[test]
    fn each_key_group_has_its_times() -> Result<()> {
        let one = ExpiryClocks::new(2, [times(1, 5), times(1, 5), times(2, 5)]);
        let other = ExpiryClocks::new(7, [times(9, 9)]);
        assert_eq!(one.ranges.len(), 2, "neighbours are joined");
        let stored: Vec<Vec<u8>> = [other.to_elements()?, one.to_elements()?].concat();
        let both = ExpiryClocks::from_elements(stored.iter().map(Vec::as_slice))?;
        let expected = [
            (1, None),
            (2, Some((1, 5))),
            (3, Some((1, 5))),
            (4, Some((2, 5))),
            (5, None),
            (7, Some((9, 9))),
        ];
        for (group, expected) in expected {
            let expected =
                expected.map_or(ExpiryTimes::BEGINNING, |(event, processing)| times(event, processing));
            assert_eq!(both.at(KeyGroup(group)), expected, "key group {group}");
        }
        Ok(())
    }

    #[test]
    fn each_key_group_stands_there_once_and_no_other() -> Result<()> {
        let elements = ExpiryClocks::new(2, [times(1, 5), times(1, 5), times(2, 5)]).to_elements()?;
        let (first, last) = (elements[0].as_slice(), elements[1].as_slice());
        for (elements, start, end, expected) in [
            (&[first, last][..], 2, 5, true),
            (&[first, last], 2, 6, false),
            (&[first, last], 2, 4, false),
            (&[first, last], 1, 5, false),
            (&[first], 2, 5, false),
            (&[last], 2, 5, false),
            (&[last, first], 2, 5, false),
            (&[first, first, last], 2, 5, false),
            (&[], 2, 5, false),
            (&[], 2, 2, true),
        ] {
            let found = ExpiryClocks::are_of(elements.iter().copied(), KeyGroupRange { start, end })?;
            assert_eq!(found, expected, "{elements:?} of {start}..{end}");
        }
        assert!(ExpiryClocks::are_of([&[1_u8][..]], KeyGroupRange { start: 1, end: 2 }).is_err(), "cut");
        Ok(())
    }

    #[test]
    fn what_is_said_twice_is_damage() -> Result<()> {
        let one = ExpiryClocks::new(2, [times(1, 5), times(1, 5)]).to_elements()?;
        let other = ExpiryClocks::new(3, [times(1, 5)]).to_elements()?;
        let both: Vec<&[u8]> = one.iter().chain(&other).map(Vec::as_slice).collect();
        let error = ExpiryClocks::from_elements(both).expect_err("key group 3 stands there twice");
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        assert!(ExpiryClocks::from_elements([&[1_u8][..]]).is_err(), "cut");
        Ok(())
    }
}
