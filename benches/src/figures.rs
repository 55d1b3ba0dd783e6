//! What one run says of itself, as a line of JSON.

use std::time::Duration;

use engine::prelude::JobResult;
use serde::{Deserialize, Serialize};

use crate::turns::Turns;

/// The figures of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Records emitted by the sources.
    pub records: u64,
    /// From the start of the JobManager to the end.
    pub seconds: f64,
    /// Processor time of the whole process.
    pub cpu_seconds: f64,
    /// Completed checkpoints.
    pub checkpoints: u64,
    /// Cells that the checkpoints drained.
    pub cells: u64,
    /// Bytes of the runs of these checkpoints.
    pub bytes: u64,
    /// Bytes of merged runs.
    pub merged_bytes: u64,
    /// Steps of snapshot work on tasks.
    pub steps: u64,
    /// Those of over 0.3 ms of processor time.
    pub long_steps: u64,
    /// The longest, in ms of processor time.
    pub longest_step_ms: f64,
    /// The 99.9th percentile of the time between two batches at a sink, in ms.
    pub gap_ms: f64,
    /// From trigger to durable record, median and greatest, in ms.
    pub checkpoint_ms: Option<(f64, f64)>,
    /// Of a run that took turns with and without checkpoints.
    pub turns: Option<Turns>,
}

impl Figures {
    /// What the result of a job says.
    #[must_use]
    pub fn of(result: &JobResult) -> Self {
        let snapshots = result.snapshots;
        Self {
            records: result.records,
            seconds: result.elapsed.as_secs_f64(),
            cpu_seconds: process_cpu().as_secs_f64(),
            checkpoints: result.checkpoints,
            cells: snapshots.cells,
            bytes: snapshots.bytes_added,
            merged_bytes: snapshots.bytes_merged,
            steps: snapshots.steps,
            long_steps: snapshots.long_steps,
            longest_step_ms: millis(Duration::from_micros(snapshots.longest_step_us)),
            gap_ms: 0.0,
            checkpoint_ms: None,
            turns: None,
        }
    }

    /// As a line.
    ///
    /// # Panics
    /// Never: numbers can be written.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("numbers can be written")
    }

    /// Records per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds
    }
}

/// A time span in milliseconds.
#[must_use]
pub fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// The middle value; of two middle ones the greater. 0 of none.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Processor time of this process so far.
#[must_use]
pub fn process_cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// The part of it that the operating system took, on Linux; to 10 ms. Most of it, where much memory is used for the first time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "it looks at the process from outside of the job")]
pub fn system_cpu() -> Duration {
    /// Of these units there are a hundred in a second, whatever the kernel counts in.
    const TICK: Duration = Duration::from_millis(10);
    /// Where it stands behind the name, which may hold anything.
    const SYSTEM: usize = 12;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let figures = stat.rsplit_once(')').map_or("", |(_, figures)| figures);
    let ticks = figures.split_whitespace().nth(SYSTEM).and_then(|ticks| ticks.parse().ok());
    TICK * ticks.unwrap_or_default()
}
