//! Restarts for ever, or so many times, with a delay that grows from failure to failure and falls back after a time
//! without one.

use std::time::Duration;

use env::Monotonic;
use serde::{Deserialize, Serialize};
use types::Error;

use super::{Verdict, not_zero};

/// Restarts with a growing delay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialDelay {
    /// The delay before the first restart.
    pub initial: Duration,
    /// The factor from one delay to the next, 1 or more.
    pub factor: f64,
    /// The longest delay, before jitter.
    pub max: Duration,
    /// After so long without a failure, counted from the end of the last delay, the delay is the initial one again.
    pub reset: Duration,
    /// The share of a delay by which it varies up and down, 0 to 1, so that jobs that fail together do not return
    /// together.
    pub jitter: f64,
    /// How many restarts there are before the delay falls back; none: no end.
    pub attempts: Option<u32>,
}

impl Default for ExponentialDelay {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            factor: 1.5,
            max: Duration::from_secs(60),
            reset: Duration::from_secs(3600),
            jitter: 0.1,
            attempts: None,
        }
    }
}

/// Where the delay stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Backoff {
    restarts: u32,
    /// When the last restart was due.
    last_restart: Monotonic,
    last_delay: Duration,
}

impl ExponentialDelay {
    pub(super) fn check(&self) -> Result<(), Error> {
        not_zero("exponential-delay initial", self.initial.is_zero())?;
        not_zero("exponential-delay attempts", self.attempts == Some(0))?;
        let wrong = [
            ("factor", "1 or more", !self.factor.is_finite() || self.factor < 1.0),
            ("jitter", "0 to 1", !(0.0..=1.0).contains(&self.jitter)),
            ("max", "at least the initial delay", self.max < self.initial),
        ];
        match wrong.iter().find(|(_, _, is_wrong)| *is_wrong) {
            Some((name, range, _)) => Err(Error::invalid_job(format!(
                "restart strategy setting exponential-delay {name} is out of range: give {range}"
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn on_failure(&self, now: Monotonic, backoff: &mut Backoff, jitter_unit: f64) -> Verdict {
        if backoff.restarts > 0 && now.since(backoff.last_restart) >= self.reset {
            *backoff = Backoff::default();
        }
        if let Some(attempts) = self.attempts.filter(|attempts| backoff.restarts >= *attempts) {
            return Verdict::GiveUp(format!(
                "all {attempts} restarts are used up without {:?} of calm between",
                self.reset
            ));
        }
        let delay = if backoff.restarts == 0 { self.initial } else { self.longer(backoff.last_delay) };
        let after = self.jittered(delay, jitter_unit);
        let restarts = backoff.restarts.saturating_add(1);
        *backoff = Backoff { restarts, last_restart: now + after, last_delay: delay };
        let most = self.attempts.map(|attempts| format!(" of {attempts}")).unwrap_or_default();
        Verdict::Restart { after, what: format!("restart {restarts}{most}") }
    }

    fn longer(&self, delay: Duration) -> Duration {
        Duration::try_from_secs_f64(delay.as_secs_f64() * self.factor)
            .map_or(self.max, |longer| longer.min(self.max))
    }

    /// `unit` says where between -1 and 1 this delay lies; anything else is moved to the nearer end, or to 0.
    fn jittered(&self, delay: Duration, unit: f64) -> Duration {
        let unit = if unit.is_finite() { unit.clamp(-1.0, 1.0) } else { 0.0 };
        Duration::try_from_secs_f64(delay.as_secs_f64() * (1.0 + self.jitter * unit)).unwrap_or(delay)
    }
}
