//! Until when values of a store have expired: said by the tables in front of it, looked at by whoever tidies up behind them.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use types::Timestamp;

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
