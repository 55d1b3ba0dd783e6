//! Restarts as long as failures are rare enough.

use std::{collections::VecDeque, time::Duration};

use env::Monotonic;
use serde::{Deserialize, Serialize};
use types::Error;

use super::{Verdict, not_zero};

/// Restarts unless there are too many failures within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FailureRate {
    /// How many failures may lie within `interval`; one more ends the job.
    pub failures: u32,
    /// The time over which failures are counted.
    pub interval: Duration,
    /// The delay before each restart.
    pub delay: Duration,
}

impl Default for FailureRate {
    fn default() -> Self {
        Self { failures: 1, interval: Duration::from_secs(60), delay: Duration::from_secs(1) }
    }
}

impl FailureRate {
    pub(super) fn check(&self) -> Result<(), Error> {
        not_zero("failure-rate failures", self.failures == 0)?;
        not_zero("failure-rate interval", self.interval.is_zero())
    }

    /// `recent` holds the failures before this one that still count, oldest first; never more than `failures`.
    pub(super) fn on_failure(&self, now: Monotonic, recent: &mut VecDeque<Monotonic>) -> Verdict {
        recent.retain(|failure| now.since(*failure) < self.interval);
        let (most, interval) = (self.failures, self.interval);
        if recent.len() >= most as usize {
            return Verdict::GiveUp(format!("there were more than {most} failures within {interval:?}"));
        }
        recent.push_back(now);
        let what = format!("failure {} of at most {most} within {interval:?}", recent.len());
        Verdict::Restart { after: self.delay, what }
    }
}
