//! Whether this machine's clock is behind the processing time that a snapshot remembers. State goes by the later of both, so that
//! nothing that has expired comes back: until the clock has caught up, nothing more expires.

use std::time::Duration;

use checkpoint::manifest::OperatorSnapshot;
use types::{Result, TimeDomain, Timestamp};

use super::describe;

/// Clocks of machines that are looked after differ by less.
const TOLERATED: Duration = Duration::from_secs(60);

/// What to tell the user, if it is so far behind that state notices.
///
/// # Errors
/// `Corrupt` if the snapshot cannot be read.
pub(crate) fn behind(operators: &[OperatorSnapshot], wall: Timestamp) -> Result<Option<String>> {
    let mut farthest: Option<(Timestamp, &OperatorSnapshot)> = None;
    for operator in operators {
        let expires = |state| Ok(describe::spec(state)?.expiry == Some(TimeDomain::ProcessingTime));
        let expires: Vec<bool> = operator.states.iter().map(expires).collect::<Result<_>>()?;
        let stood = operator.expiry_clocks()?.latest().processing;
        if expires.contains(&true) && farthest.is_none_or(|(other, _)| other < stood) {
            farthest = Some((stood, operator));
        }
    }
    let Some((stood, operator)) = farthest else { return Ok(None) };
    let ahead = Duration::from_millis(u64::try_from(stood.0.saturating_sub(wall.0)).unwrap_or(0));
    Ok((ahead > TOLERATED).then(|| {
        format!(
            "this machine's clock is {} behind the processing time of operator {} in the snapshot: until it has caught up, \
             nothing more expires of state with a processing-time ttl; set the clock right",
            humantime::format_duration(ahead),
            operator.uid
        )
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use checkpoint::manifest::{ListPart, StateDescription, SubtaskSnapshot};
    use types::{Bincode, Codec, ExpiryClocks, ExpiryTimes, KeyGroupRange, Shape, SubtaskIndex, Uid};

    use super::*;

    fn operator(uid: &str, kind: &str, processing: i64) -> OperatorSnapshot {
        let times = ExpiryTimes { processing: Timestamp(processing), ..ExpiryTimes::BEGINNING };
        let clocks = ExpiryClocks::new(0, [times]);
        OperatorSnapshot {
            uid: Uid::new(uid).unwrap(),
            kind: "process".to_owned(),
            parallelism: 1,
            key_shape: Vec::new(),
            states: vec![StateDescription {
                name: "seen".to_owned(),
                kind: kind.to_owned(),
                codec: Bincode::ID.to_owned(),
                shape: Shape::U64.to_bytes(),
                map_key_shape: Vec::new(),
            }],
            subtasks: vec![SubtaskSnapshot {
                subtask: SubtaskIndex(0),
                groups: KeyGroupRange { start: 0, end: 1 },
                runs: Vec::new(),
                lists: vec![ListPart::of_expiry_clocks(&clocks).unwrap()],
                prepared: Vec::new(),
                watermark: Timestamp::MIN,
                processing_time: Timestamp(processing),
            }],
            enumerator: None,
        }
    }

    #[test]
    fn only_a_clock_that_state_notices_is_told() {
        const IN_TIME: &str = "value, processing-time ttl";
        let told = |operators: &[OperatorSnapshot], wall| behind(operators, Timestamp(wall)).unwrap();
        let one = [operator("count", IN_TIME, 200_000)];
        assert_eq!(told(&one, 140_000), None, "a minute is no news");
        assert_eq!(told(&one, 300_000), None);
        assert!(told(&one, 139_999).unwrap().contains("1m 1ms behind the processing time of operator count"));
        let never = [operator("count", IN_TIME, Timestamp::MIN.0)];
        assert_eq!(told(&never, 0), None, "no time had come");
        let others = [operator("join", "value, event-time ttl", 900_000), operator("all", "value", 900_000)];
        assert_eq!(told(&others, 0), None, "nothing goes by it");
        let several = [&one[..], &[operator("late", IN_TIME, 800_000)], &others].concat();
        assert!(
            told(&several, 100_000).unwrap().contains("11m 40s behind the processing time of operator late")
        );
    }
}
