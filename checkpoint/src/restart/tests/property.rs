//! Each strategy against a model that keeps all failures and counts anew each time, whatever comes when.

use proptest::prelude::*;

use super::*;

/// A failure of an attempt: how long after its start was due, in milliseconds, and the random number of its restart.
#[derive(Clone, Copy, Debug)]
struct Failure {
    after_ms: u64,
    unit: f64,
}

fn failures() -> impl Strategy<Value = Vec<Failure>> {
    // Mostly short lives, some of the lengths at which strategies forget, to the millisecond.
    let after = prop_oneof![3 => 0..50_u64, 2 => 0..3_000_u64, 1 => (1..=3_u64).prop_map(|s| s * 1_000)];
    let failure = (after, -1.0..=1.0_f64).prop_map(|(after_ms, unit)| Failure { after_ms, unit });
    prop::collection::vec(failure, 1..40)
}

/// What came of one failure.
#[derive(Debug)]
struct Answer {
    now: Duration,
    unit: f64,
    /// The delay and the text for people; none where the job ended.
    restart: Option<(Duration, String)>,
}

/// Lets the failures happen until the job ends. An attempt begins when its restart is due.
fn live(strategy: RestartStrategy, failures: &[Failure]) -> Vec<Answer> {
    strategy.check().expect("values with a meaning are drawn");
    let mut state = RestartState::new(strategy);
    let (mut answers, mut now) = (Vec::new(), Duration::ZERO);
    for failure in failures {
        now += Duration::from_millis(failure.after_ms);
        let restart = match state.on_failure(Monotonic(now), broken(), failure.unit) {
            RestartDecision::Restart { after, description } => Some((after, description)),
            RestartDecision::Fail { .. } => None,
        };
        let delay = restart.as_ref().map(|(after, _)| *after);
        answers.push(Answer { now, unit: failure.unit, restart });
        let Some(delay) = delay else { break };
        now += delay;
    }
    let restarts = answers.iter().filter(|answer| answer.restart.is_some()).count();
    assert_eq!(state.restarts() as usize, restarts);
    answers
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn growing() -> impl Strategy<Value = ExponentialDelay> {
    let delays = (millis(1..500), 1.0..4.0_f64, millis(0..2_000));
    (delays, millis(1..3_000), 0.0..=1.0_f64, prop::option::of(1..8_u32)).prop_map(
        |((initial, factor, more), reset, jitter, attempts)| ExponentialDelay {
            initial,
            factor,
            max: initial + more,
            reset,
            jitter,
            attempts,
        },
    )
}

/// Forty delays of a millisecond or more, each rounded to nanoseconds, are wrong by less than this share.
const ROUNDING: f64 = 5e-5;

/// Equal but for what rounding to nanoseconds does, step by step.
fn close(found: Duration, expected: f64) -> bool {
    (found.as_secs_f64() - expected).abs() <= ROUNDING * expected + 1e-7
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fixed_delay_gives_each_job_its_attempts(
        attempts in 1..12_u32, delay in millis(0..2_000), failures in failures(),
    ) {
        let answers = live(RestartStrategy::FixedDelay(FixedDelay { attempts, delay }), &failures);
        prop_assert_eq!(answers.len(), failures.len().min(attempts as usize + 1));
        for (before, answer) in answers.iter().enumerate() {
            match &answer.restart {
                Some((after, text)) => {
                    prop_assert!(before < attempts as usize);
                    prop_assert_eq!(*after, delay);
                    let nth = format!("restart {} of {attempts} in ", before + 1);
                    prop_assert!(text.starts_with(&nth), "{}", text);
                }
                None => prop_assert_eq!(before, attempts as usize),
            }
        }
    }

    #[test]
    fn failure_rate_ends_exactly_where_too_many_lie_within_the_interval(
        most in 1..6_u32,
        interval in prop_oneof![millis(1..3_001), (1..=3_u64).prop_map(Duration::from_secs)],
        delay in prop_oneof![Just(Duration::ZERO), millis(0..800)],
        failures in failures(),
    ) {
        let settings = FailureRate { failures: most, interval, delay };
        let answers = live(RestartStrategy::FailureRate(settings), &failures);
        for (index, answer) in answers.iter().enumerate() {
            let within = answers[..=index].iter().filter(|other| answer.now - other.now < interval).count();
            match &answer.restart {
                Some((after, _)) => {
                    prop_assert!(within <= most as usize, "{within} within {interval:?}");
                    prop_assert_eq!(*after, delay);
                }
                None => {
                    prop_assert_eq!(within, most as usize + 1);
                    prop_assert_eq!(index + 1, answers.len());
                }
            }
        }
        prop_assert!(answers.len() == failures.len() || answers.last().is_some_and(|it| it.restart.is_none()));
    }

    #[test]
    fn exponential_delay_grows_to_its_cap_varies_within_its_jitter_and_falls_back(
        settings in growing(), failures in failures(),
    ) {
        let answers = live(RestartStrategy::ExponentialDelay(settings), &failures);
        // The restarts since the delay fell back, and when the last one was due.
        let (mut since, mut due) = (0_i32, Duration::ZERO);
        for (index, answer) in answers.iter().enumerate() {
            if since > 0 && answer.now - due >= settings.reset {
                since = 0;
            }
            let used_up = settings.attempts.is_some_and(|attempts| since >= attempts as i32);
            let Some((after, text)) = &answer.restart else {
                prop_assert!(used_up && index + 1 == answers.len());
                break;
            };
            prop_assert!(!used_up, "more than {:?} restarts", settings.attempts);
            let grown = settings.initial.as_secs_f64() * settings.factor.powi(since);
            let delay = grown.min(settings.max.as_secs_f64());
            let varied = delay * (1.0 + settings.jitter * answer.unit);
            prop_assert!(close(*after, varied), "restart {since}: {after:?}, not {varied} s");
            let (less, more) = (1.0 - settings.jitter - ROUNDING, 1.0 + settings.jitter + ROUNDING);
            let bounds = (delay * less, delay * more);
            let seconds = after.as_secs_f64();
            prop_assert!(seconds >= bounds.0 && seconds <= bounds.1, "{seconds} is not in {bounds:?}");
            since += 1;
            let nth = format!("restart {since} ");
            prop_assert!(text.starts_with(&nth) , "{} is not {}", text, nth);
            due = answer.now + *after;
        }
        prop_assert!(answers.len() == failures.len() || answers.last().is_some_and(|it| it.restart.is_none()));
    }

    #[test]
    fn none_never_restarts(failures in failures()) {
        let answers = live(RestartStrategy::None, &failures);
        prop_assert!(answers.len() == 1 && answers[0].restart.is_none());
    }
}
