//! A fixed number of restarts, with the same delay before each.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::Error;

use super::{Verdict, not_zero};

/// Restarts a fixed number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FixedDelay {
    /// How many restarts there are in the life of the job's process.
    pub attempts: u32,
    /// The delay before each.
    pub delay: Duration,
}

impl Default for FixedDelay {
    fn default() -> Self {
        Self { attempts: 1, delay: Duration::from_secs(1) }
    }
}

impl FixedDelay {
    pub(super) fn check(&self) -> Result<(), Error> {
        not_zero("fixed-delay attempts", self.attempts == 0)
    }

    /// `before` counts the restarts so far.
    pub(super) fn on_failure(&self, before: u32) -> Verdict {
        if before >= self.attempts {
            return Verdict::GiveUp(format!("all {} restarts are used up", self.attempts));
        }
        Verdict::Restart { after: self.delay, what: format!("restart {} of {}", before + 1, self.attempts) }
    }
}
