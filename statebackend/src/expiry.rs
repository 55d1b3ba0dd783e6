//! State with a time to live: each value, element or entry is kept with the time at which it has expired.
//!
//! A deadline is set once, when something is written; whether it has passed is asked of the clock of the key group, which never
//! goes back (`types::ExpiryClocks`). So an entry that has expired never shows again, and whether it is still there makes no
//! difference to anybody: it is dropped from tables little by little, and from runs when they are merged.

use std::{fmt, time::Duration};

use types::{
    Error, ExpiryClocks, ExpiryTimes, KeyGroup, KeyGroupRange, Result, TimeDomain, Timestamp,
    serde::{Deserialize, Deserializer, Serialize, Serializer},
};

use crate::{handle::KeyedContext, store::ExpiredUntil};

/// How long state lives after it was written last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    pub(crate) duration: Duration,
    pub(crate) domain: TimeDomain,
    pub(crate) refreshed_by_reads: bool,
}

impl Ttl {
    /// In event time: from the time of the record or timer that writes, or from the watermark where that is later, until the
    /// watermark has come as far. While a timer is worked on, until the time of that timer.
    #[must_use]
    pub const fn event_time(duration: Duration) -> Self {
        Self { duration, domain: TimeDomain::EventTime, refreshed_by_reads: false }
    }

    /// In processing time. The clock is looked at once for each batch of records, and never goes back, also where another
    /// machine goes on whose clock is slow.
    #[must_use]
    pub const fn processing_time(duration: Duration) -> Self {
        Self { duration, domain: TimeDomain::ProcessingTime, refreshed_by_reads: false }
    }

    /// Reading counts as writing, too. Reading all entries of a map one after another does not.
    #[must_use]
    pub const fn refreshed_by_reads(self) -> Self {
        Self { refreshed_by_reads: true, ..self }
    }

    /// What has expired for the key of a context, and until when lives what is written now.
    pub(crate) fn look(&self, ctx: &mut impl KeyedContext) -> Moment {
        let time = ctx.event_time();
        let (key, state) = ctx.keyed();
        let now = state.expired_until(self.domain, key.group);
        let written = match self.domain {
            TimeDomain::EventTime => {
                Some(now.max(time.unwrap_or(Timestamp::MIN))).filter(|at| *at > Timestamp::MIN)
            }
            TimeDomain::ProcessingTime => Some(now),
        };
        Moment { now, deadline: written.map(|at| at + self.duration) }
    }
}

/// What the clocks say to one operation on one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Timestamp,
    deadline: Option<Timestamp>,
}

impl Moment {
    /// Until when lives what is written now.
    ///
    /// # Errors
    /// `User` where there is no event time.
    pub(crate) fn deadline(self) -> Result<Timestamp> {
        self.deadline.ok_or_else(|| {
            Error::user("state with an event-time ttl was written for a record that has no event time")
                .with_advice("assign timestamps to the stream, or give the state a processing-time ttl")
        })
    }

    /// Whether it lives.
    pub(crate) fn shows<T>(self, stamped: &Stamped<T>) -> bool {
        stamped.deadline > self.now
    }
}

/// A value with its deadline. Encoded as the deadline, eight bytes, little-endian, and the value.
#[derive(Clone)]
pub struct Stamped<T> {
    pub(crate) deadline: Timestamp,
    pub(crate) value: T,
}

impl<T> Stamped<T> {
    /// Lets `change` put, replace or remove what lives in `place`. What is there then lives until `deadline`, or as long as what
    /// lived before where that is longer: writes in another order leave the same deadline.
    pub(crate) fn update<R>(
        place: &mut Option<Self>,
        moment: Moment,
        deadline: Timestamp,
        change: impl FnOnce(&mut Option<T>) -> R,
    ) -> R {
        let before = place.take().filter(|stamped| moment.shows(stamped));
        let deadline = before.as_ref().map_or(deadline, |before| before.deadline.max(deadline));
        let mut value = before.map(|before| before.value);
        let result = change(&mut value);
        *place = value.map(|value| Self { deadline, value });
        result
    }
}

/// The bytes that stand before a value with a time to live.
pub(crate) const DEADLINE_LEN: usize = size_of::<i64>();

/// The deadline of an encoded value or element.
///
/// # Errors
/// `Corrupt` if it is too short to have one.
pub(crate) fn deadline_of(encoded: &[u8]) -> Result<Timestamp> {
    let deadline = encoded.first_chunk::<DEADLINE_LEN>();
    let deadline = deadline.ok_or_else(|| Error::corrupt("a value with a time to live has no deadline"))?;
    Ok(Timestamp(i64::from_le_bytes(*deadline)))
}

impl<T: Serialize> Serialize for Stamped<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        (self.deadline.0.to_le_bytes(), &self.value).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Stamped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (deadline, value) = <([u8; DEADLINE_LEN], T)>::deserialize(deserializer)?;
        Ok(Self { deadline: Timestamp(i64::from_le_bytes(deadline)), value })
    }
}

/// The clocks of a subtask that has state with a time to live.
pub(crate) struct Clocks {
    now: ExpiryTimes,
    first_group: u16,
    /// What had expired before, by key group.
    floors: Vec<ExpiryTimes>,
    /// The least of them.
    least_floor: ExpiryTimes,
    /// Until when state has expired in all key groups, in event time and in processing time: for the store.
    everywhere: [ExpiredUntil; 2],
    /// Where looking for expired cells goes on.
    pub(crate) hand: Hand,
    /// What the tables had done when it went on last.
    pub(crate) touched: u64,
}

/// A place among the cells of a subtask: a table, one of its key groups, a place in that, and in a map.
#[derive(Debug, Default)]
pub(crate) struct Hand {
    pub(crate) table: usize,
    pub(crate) group: usize,
    pub(crate) bucket: usize,
    /// Entries of the map there that come after this one are still to be looked at.
    pub(crate) sub: Option<types::KeyBytes>,
}

impl Clocks {
    pub(crate) fn new(groups: KeyGroupRange) -> Self {
        Self {
            now: ExpiryTimes::BEGINNING,
            first_group: groups.start,
            floors: vec![ExpiryTimes::BEGINNING; groups.len()],
            least_floor: ExpiryTimes::BEGINNING,
            everywhere: Default::default(),
            hand: Hand::default(),
            touched: 0,
        }
    }

    /// The key group at a place among those of the subtask.
    pub(crate) fn group(&self, place: usize) -> KeyGroup {
        KeyGroup(self.first_group + place as u16)
    }

    /// That of a key group.
    pub(crate) fn at(&self, group: KeyGroup) -> ExpiryTimes {
        let floor = self.floors.get(usize::from(group.0.wrapping_sub(self.first_group)));
        floor.map_or(self.now, |floor| floor.max(self.now))
    }

    /// Goes on to a time. The last one of all is none: it says that nothing follows, and not that time has passed.
    pub(crate) fn advance(&mut self, domain: TimeDomain, to: Timestamp) {
        if to < Timestamp::MAX {
            let now = match domain {
                TimeDomain::EventTime => &mut self.now.event,
                TimeDomain::ProcessingTime => &mut self.now.processing,
            };
            *now = to.max(*now);
            self.everywhere[domain as usize].set((*now).max(self.least_floor.of(domain)));
        }
    }

    /// Until when state has expired in all key groups, now and later.
    pub(crate) fn everywhere(&self, domain: TimeDomain) -> &ExpiredUntil {
        &self.everywhere[domain as usize]
    }

    pub(crate) fn restore(&mut self, clocks: &ExpiryClocks) {
        for (group, floor) in (self.first_group..).zip(&mut self.floors) {
            *floor = floor.max(clocks.at(KeyGroup(group)));
        }
        for domain in [TimeDomain::EventTime, TimeDomain::ProcessingTime] {
            let least = self.floors.iter().map(|floor| floor.of(domain)).min().unwrap_or(Timestamp::MIN);
            match domain {
                TimeDomain::EventTime => self.least_floor.event = least,
                TimeDomain::ProcessingTime => self.least_floor.processing = least,
            }
            self.everywhere[domain as usize].set(least.max(self.now.of(domain)));
        }
    }

    pub(crate) fn to_clocks(&self) -> ExpiryClocks {
        ExpiryClocks::new(self.first_group, self.floors.iter().map(|floor| floor.max(self.now)))
    }
}

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clocks").field("now", &self.now).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use types::{Bincode, Codec};

    use super::*;

    #[test]
    fn the_deadline_stands_before_the_value() {
        let mut bytes = Vec::new();
        let stamped = Stamped { deadline: Timestamp(-2), value: "ab".to_owned() };
        Bincode::encode(&stamped, &mut bytes).unwrap();
        assert_eq!(bytes, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, b'a', b'b']);
        assert_eq!(deadline_of(&bytes).unwrap(), Timestamp(-2));
        assert_eq!(deadline_of(&bytes[..7]).unwrap_err().kind(), types::ErrorKind::Corrupt);
        let again: Stamped<String> = Bincode::decode(&bytes).unwrap();
        assert_eq!((again.deadline, again.value), (stamped.deadline, stamped.value));
    }
}
