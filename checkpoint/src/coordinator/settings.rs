//! What a job says about its checkpoints. Read from code, file, environment and command line by the engine; used by the
//! coordinator.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use types::{Error, Result};

use crate::barrier::CheckpointMode;

/// When checkpoints are taken, and what happens when they fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// From one trigger to the next; none: only when asked for, and at the end.
    pub interval: Option<Duration>,
    /// Whether a record counts exactly once, or at least once without alignment.
    pub mode: CheckpointMode,
    /// How long a checkpoint may take from its trigger to its history record.
    pub timeout: Duration,
    /// The least time from the end of a checkpoint, good or bad, to the next periodic one.
    pub min_pause: Duration,
    /// How many may be under way.
    pub max_concurrent: u32,
    /// How many may fail in a row before the job fails over.
    pub tolerable_consecutive_failures: u32,
    /// Whether more failures in a row than that fail the job; if not, it goes on without checkpoints.
    pub fail_job_on_failed_checkpoint: bool,
    /// How many completed checkpoints are kept.
    pub retained: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: None,
            mode: CheckpointMode::ExactlyOnce,
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            max_concurrent: 1,
            tolerable_consecutive_failures: 3,
            fail_job_on_failed_checkpoint: true,
            retained: 3,
        }
    }
}

impl Settings {
    /// Checks that every value has a meaning.
    ///
    /// # Errors
    /// `InvalidJob` naming the first setting that has none.
    pub fn check(&self) -> Result<()> {
        let zero = [
            ("interval", self.interval == Some(Duration::ZERO), "give a time, or \"off\" for none"),
            ("timeout", self.timeout.is_zero(), "give the longest time a checkpoint may take"),
            ("max-concurrent", self.max_concurrent == 0, "give 1 or more"),
            ("retained", self.retained == 0, "give 1 or more"),
        ];
        match zero.iter().find(|(_, is_zero, _)| *is_zero) {
            Some((name, _, remedy)) => {
                Err(Error::invalid_job(format!("checkpoints.{name} must not be 0: {remedy}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_without_a_meaning_are_refused_by_name() {
        assert!(Settings::default().check().is_ok());
        let refused = |settings: Settings, name: &str| {
            let said = format!("checkpoints.{name} must not be 0: ");
            assert!(settings.check().expect_err("it is 0").message().starts_with(&said));
        };
        refused(Settings { interval: Some(Duration::ZERO), ..Settings::default() }, "interval");
        refused(Settings { timeout: Duration::ZERO, ..Settings::default() }, "timeout");
        refused(Settings { max_concurrent: 0, ..Settings::default() }, "max-concurrent");
        refused(Settings { retained: 0, ..Settings::default() }, "retained");
    }
}
