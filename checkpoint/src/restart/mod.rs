//! What happens after a failure: restart the job after a delay, or end it. Pure; the engine's JobManager asks once for
//! each failed attempt and keeps the one [`RestartState`] for the life of the process.
//!
//! Failures that a restart cannot mend, or must not try to, end the job whatever the strategy says.

mod exponential_delay;
mod failure_rate;
mod fixed_delay;
mod none;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use env::Monotonic;
use serde::{Deserialize, Serialize};
use types::{Error, ErrorKind, Result};

use self::exponential_delay::Backoff;
pub use self::{exponential_delay::ExponentialDelay, failure_rate::FailureRate, fixed_delay::FixedDelay};

/// How a job is restarted after failures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "kebab-case")]
pub enum RestartStrategy {
    /// Never.
    None,
    /// A fixed number of times, with a fixed delay.
    FixedDelay(FixedDelay),
    /// As long as failures are rare, with a fixed delay.
    FailureRate(FailureRate),
    /// With a growing delay.
    ExponentialDelay(ExponentialDelay),
}

impl RestartStrategy {
    /// What a job has that does not say otherwise: without checkpoints a restart would begin anew.
    #[must_use]
    pub fn default_with(checkpoints: bool) -> Self {
        if checkpoints { Self::ExponentialDelay(ExponentialDelay::default()) } else { Self::None }
    }

    /// Checks that every value has a meaning.
    ///
    /// # Errors
    /// `InvalidJob` naming the first one that has none.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::FixedDelay(settings) => settings.check(),
            Self::FailureRate(settings) => settings.check(),
            Self::ExponentialDelay(settings) => settings.check(),
        }
    }
}

/// What to do after a failure.
#[derive(Debug)]
pub enum RestartDecision {
    /// Start a new attempt.
    Restart {
        /// After this time.
        after: Duration,
        /// For people: "restart 2 of 3 in 1s: CAUSE".
        description: String,
    },
    /// End the job.
    Fail {
        /// Why, with the kind and text of the last failure.
        why: Error,
    },
}

/// What a strategy says about a failure that a restart might mend.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Restart { after: Duration, what: String },
    GiveUp(String),
}

/// A strategy and what it remembers of earlier failures.
#[derive(Clone, Debug)]
pub struct RestartState {
    strategy: RestartStrategy,
    restarts: u32,
    recent: VecDeque<Monotonic>,
    backoff: Backoff,
}

impl RestartState {
    /// A strategy that has seen no failure.
    #[must_use]
    pub fn new(strategy: RestartStrategy) -> Self {
        Self { strategy, restarts: 0, recent: VecDeque::new(), backoff: Backoff::default() }
    }

    /// How many restarts there were.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The attempt failed at `now`. `jitter_unit` is a random number from -1 to 1.
    pub fn on_failure(&mut self, now: Monotonic, failure: Error, jitter_unit: f64) -> RestartDecision {
        if !is_restartable(failure.kind()) {
            return RestartDecision::Fail { why: failure };
        }
        self.restart(now, failure, jitter_unit)
    }

    /// The attempt failed at `now` over something stored that is damaged. The next start finds out whether there is
    /// an older checkpoint to go on from: that is a restart like every other, and counts as one.
    pub fn on_damage(&mut self, now: Monotonic, failure: Error, jitter_unit: f64) -> RestartDecision {
        self.restart(now, failure, jitter_unit)
    }

    fn restart(&mut self, now: Monotonic, failure: Error, jitter_unit: f64) -> RestartDecision {
        let verdict = match &self.strategy {
            RestartStrategy::None => none::on_failure(),
            RestartStrategy::FixedDelay(settings) => settings.on_failure(self.restarts),
            RestartStrategy::FailureRate(settings) => settings.on_failure(now, &mut self.recent),
            RestartStrategy::ExponentialDelay(settings) => {
                settings.on_failure(now, &mut self.backoff, jitter_unit)
            }
        };
        match verdict {
            Verdict::Restart { after, what } => {
                self.restarts = self.restarts.saturating_add(1);
                RestartDecision::Restart {
                    after,
                    description: format!("{what} in {}: {failure}", rounded(after)),
                }
            }
            Verdict::GiveUp(why) => {
                RestartDecision::Fail { why: failure.context(format!("{why}; the last failure")) }
            }
        }
    }
}

/// Whether a restart from the last checkpoint can mend a failure of this kind. It cannot where the next attempt would
/// find the same (a wrong program, input that is not what the job was told, a snapshot that does not fit or is damaged, a directory of another job), and must
/// not be tried where somebody else owns the job, where promised output is lost, or where a user said stop.
#[must_use]
pub const fn is_restartable(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Retryable | ErrorKind::Unavailable | ErrorKind::User | ErrorKind::Internal => true,
        // `Fenced`, `InvalidJob`, `BadInput`, `IncompatibleState`, `Corrupt`, `Conflict`, `Lost`, `Cancelled`, and kinds to come.
        _ => false,
    }
}

/// A delay for people, who do not wait for nanoseconds: rounded to milliseconds, such as `1.053s`.
fn rounded(delay: Duration) -> String {
    match u64::try_from((delay + Duration::from_micros(500)).as_millis()).unwrap_or(u64::MAX) {
        0 => "0ms".to_owned(),
        millis => format!("{:?}", Duration::from_millis(millis)),
    }
}

fn not_zero(name: &str, is_zero: bool) -> Result<()> {
    if is_zero {
        return Err(Error::invalid_job(format!("restart strategy setting {name} must not be 0")));
    }
    Ok(())
}
