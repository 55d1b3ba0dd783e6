//! Whether a restore has to write states anew, and what time it is for values that get deadlines then. Said once for all
//! subtasks, so that nothing of it depends on how many there are.

use checkpoint::manifest::OperatorSnapshot;
use statebackend::{Action, StateSpec};
use types::{Error, ExpiryTimes, Result, TimeDomain, Timestamp};

use super::{compatible::state_fits, describe};
use crate::graph::logical::Vertex;

/// What time it is for values that get deadlines, where the processing time is `now`. `None` if all states are as they are
/// declared.
///
/// # Errors
/// Those of a state that does not fit: it is refused before.
pub(super) fn times(
    vertex: &Vertex,
    operator: &OperatorSnapshot,
    now: Timestamp,
) -> Result<Option<ExpiryTimes>> {
    for description in &operator.states {
        let action = state_fits(vertex, operator, &describe::spec(description)?, true)?;
        if matches!(action, Action::Migrate(..)) {
            return Ok(Some(ExpiryTimes { event: event_time(operator)?, processing: now }));
        }
    }
    Ok(None)
}

/// Whether a state that gets an event-time ttl has a time from which its values can live on.
///
/// # Errors
/// `IncompatibleState` if it has none.
pub(super) fn has_event_time(
    operator: &OperatorSnapshot,
    declared: &StateSpec,
    found: &StateSpec,
) -> Result<()> {
    let in_event_time = Some(TimeDomain::EventTime);
    let is_empty = operator.subtasks.iter().all(|subtask| subtask.runs.is_empty());
    if is_empty || declared.expiry != in_event_time || found.expiry == in_event_time {
        return Ok(());
    }
    match event_time(operator)? {
        Timestamp::MIN => Err(Error::incompatible(format!(
            "operator {}, state {:?}: it gets an event-time ttl, and the snapshot knows no event time from which its values could \
             live on (no watermark had come, or all input had ended), while its operator has stored something, in this state or \
             in others: give it a processing-time ttl, or start from another snapshot",
            operator.uid, found.name
        ))),
        _ => Ok(()),
    }
}

/// How far event time had come in any subtask, so that no value expires sooner than if it had been written at the snapshot. The
/// last watermark of all is no time.
fn event_time(operator: &OperatorSnapshot) -> Result<Timestamp> {
    let clocks = operator.expiry_clocks()?;
    let watermarks = operator.subtasks.iter().map(|it| it.watermark).filter(|it| *it < Timestamp::MAX);
    Ok(watermarks.chain([clocks.latest().event]).max().unwrap_or(Timestamp::MIN))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use checkpoint::manifest::{ListPart, SubtaskSnapshot};
    use types::{ExpiryClocks, KeyGroupRange, SubtaskIndex, Uid};

    use super::*;

    fn subtask(index: u32, watermark: i64, event: Option<i64>) -> SubtaskSnapshot {
        let times = event.map(|event| ExpiryTimes { event: Timestamp(event), ..ExpiryTimes::BEGINNING });
        let clocks = times.map(|times| ExpiryClocks::new(index as u16, [times]));
        SubtaskSnapshot {
            subtask: SubtaskIndex(index),
            groups: KeyGroupRange { start: index as u16, end: index as u16 + 1 },
            runs: Vec::new(),
            lists: clocks.iter().map(|clocks| ListPart::of_expiry_clocks(clocks).unwrap()).collect(),
            prepared: Vec::new(),
            watermark: Timestamp(watermark),
            processing_time: Timestamp(0),
        }
    }

    #[test]
    fn event_time_is_the_latest_that_any_subtask_knows() {
        const MIN: i64 = Timestamp::MIN.0;
        const MAX: i64 = Timestamp::MAX.0;
        for (subtasks, expected) in [
            (vec![], MIN),
            (vec![(MIN, None), (MAX, None)], MIN),
            (vec![(7, None), (MIN, None), (9, None), (MAX, None)], 9),
            (vec![(MAX, Some(5)), (MAX, Some(8)), (MAX, None)], 8),
            (vec![(-3, Some(MIN)), (MAX, None)], -3),
        ] {
            let of =
                |(index, (watermark, event)): (u32, (i64, Option<i64>))| subtask(index, watermark, event);
            let operator = OperatorSnapshot {
                uid: Uid::new("count").unwrap(),
                kind: "process".to_owned(),
                parallelism: subtasks.len() as u32,
                key_shape: Vec::new(),
                states: Vec::new(),
                subtasks: (0..).zip(subtasks.clone()).map(of).collect(),
                enumerator: None,
            };
            assert_eq!(event_time(&operator).unwrap(), Timestamp(expected), "{subtasks:?}");
        }
    }
}
