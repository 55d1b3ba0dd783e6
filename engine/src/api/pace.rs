//! A rate limit that neither drifts nor depends on when it is asked.

use std::time::Duration;

use env::{Env, Monotonic};

/// The shortest sleep. Timers are no finer; faster rates emit several records at a time.
const TICK: Duration = Duration::from_millis(1);
/// How much of its time a reader may catch up after it was held back.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Says how many records may be emitted by now. Counted from a fixed start, so that late wake-ups add up to nothing.
#[derive(Debug)]
pub struct Pace {
    env: Env,
    per_second: f64,
    /// From when on records are counted; set at the first read.
    start: Option<Monotonic>,
    /// Records emitted since `start`.
    emitted: u64,
}

impl Pace {
    /// `per_second` records per second, and up to a second's worth at once after it was held back; the number must be
    /// finite and above 0.
    #[must_use]
    pub fn new(env: &Env, per_second: f64) -> Self {
        Self { env: env.clone(), per_second, start: None, emitted: 0 }
    }

    /// Waits until at least one record is due; returns how many are. Cancel-safe: it changes nothing that the next call
    /// would not find out again.
    pub async fn due(&mut self) -> u64 {
        loop {
            let now = self.env.now();
            let due = self.due_at(now);
            if due > 0 {
                return due;
            }
            self.env.sleep(self.until_next(now).max(TICK)).await;
        }
    }

    /// Notes that so many records were emitted.
    pub fn emitted(&mut self, records: u64) {
        self.emitted += records;
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "counts"
    )]
    fn due_at(&mut self, now: Monotonic) -> u64 {
        let start = *self.start.get_or_insert(now);
        let allowed = (now.since(start).as_secs_f64() * self.per_second) as u64;
        let due = allowed.saturating_sub(self.emitted);
        let most = (CATCH_UP.as_secs_f64() * self.per_second).max(1.0) as u64;
        if due > most {
            // Held back for long: the time that cannot be caught up is forgotten.
            let span = Duration::from_secs_f64(most as f64 / self.per_second);
            self.start = Some(Monotonic(now.0.saturating_sub(span)));
            self.emitted = 0;
            return most;
        }
        due
    }

    #[allow(clippy::cast_precision_loss, reason = "counts")]
    fn until_next(&self, now: Monotonic) -> Duration {
        let at = (self.emitted + 1) as f64 / self.per_second;
        let gone = self.start.map_or(Duration::ZERO, |start| now.since(start));
        // A rate of one record in ages is a wait for ever.
        Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX / 2).saturating_sub(gone)
    }
}
