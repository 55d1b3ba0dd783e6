//! What checkpoints cost, within one run: seconds with and without them in turn. Two runs differ by more than what is
//! asked, by the pages that each happens to get and by what the machine's neighbours do in its minute; two windows of one
//! run differ by little else than the checkpoints.

use std::time::Duration;

use engine::{
    cluster::{attempt::Ask, local::JobHandle},
    prelude::*,
};
use env::{Env, Monotonic};
use serde::{Deserialize, Serialize};
use types::Result;

use crate::{
    figures::{median, process_cpu},
    gaps::Gaps,
};

/// Until nearly all keys have come and their tables have grown.
const WARM_UP: Duration = Duration::from_secs(4);
/// Between two checkpoints.
const INTERVAL: Duration = Duration::from_secs(1);
/// Checkpoints of one turn.
const CHECKPOINTS: u32 = 3;
/// After a turn's last interval: what is still under way belongs to its checkpoints.
const SETTLE: Duration = Duration::from_millis(500);
/// Without checkpoints.
const REST: Duration = Duration::from_secs(2);

/// What the turns of one run say; of each the median.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Turns {
    /// Records per second with checkpoints.
    pub rate: f64,
    /// That rate to the one without, right before and right after.
    pub ratio: f64,
    /// Processor time per record without checkpoints, in ns.
    pub record_ns: f64,
    /// Processor time per changed cell, in ns: what is more than the records take without checkpoints.
    pub cell_ns: f64,
}

/// What a process had done and used at one moment.
#[derive(Clone, Copy, Default)]
struct Reading {
    at: Monotonic,
    cpu: Duration,
    records: u64,
    cells: u64,
}

impl Reading {
    fn take(running: &JobHandle, env: &Env, gaps: &Gaps) -> Self {
        let cells = running.control().view().snapshots.cells;
        Self { at: env.now(), cpu: process_cpu(), records: gaps.records(), cells }
    }
}

/// What went by between two readings.
#[derive(Clone, Copy, Default)]
struct Window {
    seconds: f64,
    cpu: f64,
    records: f64,
    cells: f64,
}

impl Window {
    fn between(from: Reading, to: Reading) -> Self {
        Self {
            seconds: to.at.since(from.at).as_secs_f64(),
            cpu: (to.cpu - from.cpu).as_secs_f64(),
            records: (to.records - from.records) as f64,
            cells: (to.cells - from.cells) as f64,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            seconds: self.seconds + other.seconds,
            cpu: self.cpu + other.cpu,
            records: self.records + other.records,
            cells: self.cells + other.cells,
        }
    }

    fn rate(self) -> f64 {
        self.records / self.seconds
    }

    fn record_ns(self) -> f64 {
        self.cpu * 1e9 / self.records
    }
}

/// The seconds of one turn: its intervals, and these with what is under way after them.
#[derive(Clone, Copy)]
struct Turn {
    intervals: Window,
    whole: Window,
}

/// Takes `count` turns in a job that takes no checkpoints by itself, and cancels it.
///
/// # Errors
/// Why the job failed, or a checkpoint of it.
pub async fn take(running: JobHandle, env: &Env, gaps: &Gaps, count: u32) -> Result<(Turns, JobResult)> {
    let read = || Reading::take(&running, env, gaps);
    env.sleep(WARM_UP).await;
    let mut rests = vec![rest(env, read).await];
    let mut turns = Vec::new();
    for _ in 0..count {
        turns.push(turn(&running, env, read).await?);
        rests.push(rest(env, read).await);
    }
    running.control().ask(Ask::Cancel).await?;
    Ok((judge(&turns, &rests), running.join().await?))
}

async fn rest(env: &Env, read: impl Fn() -> Reading) -> Window {
    let begin = read();
    env.sleep(REST).await;
    Window::between(begin, read())
}

async fn turn(running: &JobHandle, env: &Env, read: impl Fn() -> Reading) -> Result<Turn> {
    let begin = read();
    for number in 1..=CHECKPOINTS {
        running.control().ask(Ask::Checkpoint).await?;
        env.sleep((INTERVAL * number).saturating_sub(env.now().since(begin.at))).await;
    }
    let intervals = Window::between(begin, read());
    env.sleep(SETTLE).await;
    Ok(Turn { intervals, whole: Window::between(begin, read()) })
}

/// Each turn beside the rests before and after it.
fn judge(turns: &[Turn], rests: &[Window]) -> Turns {
    let beside: Vec<Window> = rests.windows(2).map(|pair| pair[0].and(pair[1])).collect();
    let pairs = || turns.iter().zip(&beside);
    Turns {
        rate: median(turns.iter().map(|turn| turn.intervals.rate())),
        ratio: median(pairs().map(|(turn, rest)| turn.intervals.rate() / rest.rate())),
        record_ns: median(rests.iter().map(|rest| rest.record_ns())),
        cell_ns: median(pairs().map(|(Turn { whole, .. }, rest)| {
            (whole.record_ns() - rest.record_ns()) * whole.records / whole.cells
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_judged_by_the_rests_around_it() {
        // 100 ns a record without checkpoints; two cells take 300 ns each.
        let rest = |records: f64| Window { seconds: 2.0, cpu: records * 1e-7, records, cells: 0.0 };
        let whole = Window { seconds: 3.5, cpu: 100.0 * 1e-7 + 2.0 * 3e-7, records: 100.0, cells: 2.0 };
        let intervals = Window { seconds: 3.0, cpu: 0.0, records: 90.0, cells: 2.0 };
        let turns = judge(&[Turn { intervals, whole }], &[rest(80.0), rest(40.0)]);
        assert!((turns.cell_ns - 300.0).abs() < 1e-6, "{turns:?}");
        assert!((turns.ratio - 1.0).abs() < 1e-9, "{turns:?}");
        assert!((turns.rate - 30.0).abs() < 1e-9, "{turns:?}");
        assert!((turns.record_ns - 100.0).abs() < 1e-6, "{turns:?}");
    }
}
