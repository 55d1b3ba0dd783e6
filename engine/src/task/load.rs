//! How a task spends its time: busy, held back by those who take its records, or idle. Its loop says what it waits for;
//! about once a second the shares become gauges, under Flink's names. Writing into a sink is being busy, as there.
//!
//! The clock is read around waits and never for a record.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use checkpoint::manifest::TaskId;
use env::{Env, Monotonic};

use crate::metrics::{Gauge, Metrics};

/// How long the times are added up before they are shown.
const WINDOW: Duration = Duration::from_secs(1);

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Room in a channel out.
    Room,
    /// The sink, which is at work.
    Sink,
    /// Records, or the time to do something.
    Work,
}

/// The times of one task, and where they are shown.
pub(crate) struct Load {
    since: Monotonic,
    back_pressured: Duration,
    idle: Duration,
    busy_gauge: Gauge,
    back_pressured_gauge: Gauge,
    idle_gauge: Gauge,
}

impl Load {
    /// A task that begins at `now`.
    pub(crate) fn new(metrics: &Metrics, job: &str, task: TaskId, now: Monotonic) -> Self {
        let (chain, subtask) = (task.chain.to_string(), task.subtask.to_string());
        let labels = [("job", job), ("chain", &chain), ("subtask", &subtask)];
        let gauge = |name: &str, help: &str| metrics.gauge(name, help, &labels);
        Self {
            since: now,
            back_pressured: Duration::ZERO,
            idle: Duration::ZERO,
            busy_gauge: gauge("task_busy_time_ms_per_second", "Time at work"),
            back_pressured_gauge: gauge(
                "task_back_pressured_time_ms_per_second",
                "Time held back by those who take its records",
            ),
            idle_gauge: gauge("task_idle_time_ms_per_second", "Time without anything to do"),
        }
    }

    /// Notes a wait of this length.
    pub(crate) fn waited(&mut self, wait: Wait, span: Duration) {
        match wait {
            Wait::Room => self.back_pressured += span,
            Wait::Sink => {}
            Wait::Work => self.idle += span,
        }
    }

    /// Shows the times once they are those of a whole window.
    pub(crate) fn show(&mut self, now: Monotonic) {
        let span = now.since(self.since);
        if span < WINDOW {
            return;
        }
        let (back_pressured, idle) = (per_second(self.back_pressured, span), per_second(self.idle, span));
        self.back_pressured_gauge.set(back_pressured);
        self.idle_gauge.set(idle);
        self.busy_gauge.set(1_000 - back_pressured - idle);
        (self.since, self.back_pressured, self.idle) = (now, Duration::ZERO, Duration::ZERO);
    }

    /// How long a wait may last before something is to be shown.
    pub(crate) fn until_shown(&self, now: Monotonic) -> Duration {
        WINDOW.saturating_sub(now.since(self.since))
    }
}

impl Drop for Load {
    /// A task that has ended does nothing, and waits for nothing.
    fn drop(&mut self) {
        for gauge in [&self.busy_gauge, &self.back_pressured_gauge, &self.idle_gauge] {
            gauge.set(0);
        }
    }
}

/// Milliseconds of each second of `span`.
fn per_second(part: Duration, span: Duration) -> i64 {
    let share = part.as_nanos() * 1_000 / span.as_nanos().max(1);
    i64::try_from(share).unwrap_or(1_000).min(1_000)
}

/// Awaits `event`, and says how long it was awaited. An event that is ready costs no look at the clock.
pub(crate) async fn measured<T>(env: &Env, event: impl Future<Output = T>) -> (T, Duration) {
    let mut event = pin!(event);
    let (mut waited, mut asleep) = (Duration::ZERO, None);
    poll_fn(|cx| {
        if let Some(asleep) = asleep.take() {
            waited += env.now().since(asleep);
        }
        match event.as_mut().poll(cx) {
            Poll::Ready(event) => Poll::Ready((event, waited)),
            Poll::Pending => {
                asleep = Some(env.now());
                Poll::Pending
            }
        }
    })
    .await
}
