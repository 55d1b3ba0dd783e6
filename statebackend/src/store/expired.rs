//! Which values of a store have expired: said by the tables in front of it, looked at by whoever tidies up behind them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use types::{Result, Timestamp};

use crate::{expiry::deadline_of, run::list_chunk::elements};

/// A time that goes on. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct ExpiredUntil(Arc<AtomicI64>);

impl Default for ExpiredUntil {
    /// Nothing has expired.
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl ExpiredUntil {
    /// What has a deadline up to this time has expired.
    #[must_use]
    pub fn get(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, until: Timestamp) {
        self.0.store(until.0, Ordering::Relaxed);
    }
}

/// How the values of a state expire. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ExpiryRule {
    until: ExpiredUntil,
    /// Whether a value is a chunk of a list, with a deadline before each element.
    is_list: bool,
}

impl ExpiryRule {
    /// Each value begins with its deadline, and has expired when `until` has come as far.
    #[must_use]
    pub fn of_values(until: ExpiredUntil) -> Self {
        Self { until, is_list: false }
    }

    /// Each value is a chunk of a list, whose elements begin with their deadlines: it has expired with the last of them.
    #[must_use]
    pub fn of_lists(until: ExpiredUntil) -> Self {
        Self { until, is_list: true }
    }

    /// Whether a stored value has expired, all of it. One that cannot be read has not: whoever reads it says what is wrong.
    #[must_use]
    pub fn has_expired(&self, value: &[u8]) -> bool {
        let until = self.until.get();
        let has_expired = |value: &[u8]| deadline_of(value).is_ok_and(|deadline| deadline <= until);
        if self.is_list {
            elements(value).all(|element: Result<_>| element.is_ok_and(has_expired))
        } else {
            has_expired(value)
        }
    }
}
