//! Each strategy by example, and what is never restarted.

mod property;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

fn broken() -> Error {
    Error::user("operator count: record 7 panicked: boom")
}

/// The delay in milliseconds, or the text of the end.
fn fail(state: &mut RestartState, seconds: u64, jitter: f64) -> Result<u128, String> {
    match state.on_failure(at(seconds), broken(), jitter) {
        RestartDecision::Restart { after, description } => {
            assert!(description.contains("boom"), "{description}");
            Ok(after.as_millis())
        }
        RestartDecision::Fail { why } => {
            assert_eq!(why.kind(), ErrorKind::User);
            Err(why.to_string())
        }
    }
}

fn assert_ends(result: Result<u128, String>, word: &str) {
    let why = result.expect_err("the job ends");
    assert!(why.contains(word) && why.contains("record 7 panicked: boom"), "{why}");
}

#[test]
fn none_ends_at_the_first_failure() {
    assert_ends(fail(&mut RestartState::new(RestartStrategy::None), 0, 0.0), "none");
}

#[test]
fn fixed_delay_restarts_so_many_times() {
    let settings = FixedDelay { attempts: 2, delay: SECOND };
    let mut state = RestartState::new(RestartStrategy::FixedDelay(settings));
    let RestartDecision::Restart { description, .. } = state.on_failure(at(0), broken(), 0.0) else {
        panic!("it restarts")
    };
    assert_eq!(description, format!("restart 1 of 2 in 1s: {}", broken()));
    assert_eq!(fail(&mut state, 100_000, 1.0), Ok(1000));
    assert_eq!(state.restarts(), 2);
    assert_ends(fail(&mut state, 200_000, 0.0), "all 2 restarts");
    assert_ends(fail(&mut state, 300_000, 0.0), "all 2 restarts");
}

#[test]
fn failure_rate_counts_what_lies_within_the_interval() {
    let settings = FailureRate { failures: 2, interval: 60 * SECOND, delay: 3 * SECOND };
    let mut state = RestartState::new(RestartStrategy::FailureRate(settings));
    assert_eq!(fail(&mut state, 0, 0.0), Ok(3000));
    assert_eq!(fail(&mut state, 59, 0.0), Ok(3000));
    assert_eq!(fail(&mut state, 60, 0.0), Ok(3000), "the first one counts no more");
    assert_ends(fail(&mut state, 118, 0.0), "more than 2 failures within 60s");
}

#[test]
fn exponential_delay_grows_to_the_limit_and_falls_back() {
    let settings = ExponentialDelay { max: 3 * SECOND, reset: 100 * SECOND, ..ExponentialDelay::default() };
    let mut state = RestartState::new(RestartStrategy::ExponentialDelay(settings));
    let delays: Vec<_> = (0..5).map(|second| fail(&mut state, second, 0.0)).collect();
    assert_eq!(delays, [Ok(1000), Ok(1500), Ok(2250), Ok(3000), Ok(3000)]);
    // The last restart was due at 7 s.
    assert_eq!(fail(&mut state, 106, 0.0), Ok(3000));
    assert_eq!(fail(&mut state, 209, 0.0), Ok(1000));
}

#[test]
fn jitter_moves_a_delay_but_does_not_add_up() {
    let mut state = RestartState::new(RestartStrategy::ExponentialDelay(ExponentialDelay::default()));
    assert_eq!(fail(&mut state, 0, 1.0), Ok(1100));
    assert_eq!(fail(&mut state, 0, -1.0), Ok(1350));
    assert_eq!(fail(&mut state, 0, 99.0), Ok(2475));
    assert_eq!(fail(&mut state, 0, f64::NAN), Ok(3375));
}

#[test]
fn exponential_delay_ends_where_attempts_are_given() {
    let settings = ExponentialDelay { attempts: Some(1), ..ExponentialDelay::default() };
    let mut state = RestartState::new(RestartStrategy::ExponentialDelay(settings));
    assert_eq!(fail(&mut state, 0, 0.0), Ok(1000));
    assert_ends(fail(&mut state, 3600, 0.0), "all 1 restarts");
    assert_eq!(fail(&mut state, 3601, 0.0), Ok(1000), "an hour of calm");
}

#[test]
fn for_ever_means_for_ever() {
    let mut state = RestartState::new(RestartStrategy::ExponentialDelay(ExponentialDelay::default()));
    let delays: Vec<_> = (0..1000).map(|second| fail(&mut state, second, 1.0)).collect();
    assert_eq!(delays.last(), Some(&Ok(66_000)));
}

#[test]
fn what_a_restart_cannot_mend_is_never_restarted() {
    use ErrorKind::{Cancelled, Conflict, Corrupt, Fenced, IncompatibleState, InvalidJob, Lost};
    for kind in [Fenced, InvalidJob, IncompatibleState, Corrupt, Lost, Conflict, Cancelled] {
        let settings = FixedDelay { attempts: 9, delay: SECOND };
        let mut state = RestartState::new(RestartStrategy::FixedDelay(settings));
        let decision = state.on_failure(at(0), Error::new(kind, "it is so"), 0.0);
        assert!(
            matches!(decision, RestartDecision::Fail { why } if why.kind() == kind && why.to_string() == "it is so")
        );
        assert_eq!(state.restarts(), 0);
    }
}

#[test]
fn values_without_a_meaning_are_refused_by_name() {
    let refused = |strategy: RestartStrategy, name: &str| {
        let error = strategy.check().expect_err("it has no meaning");
        assert!(error.message().contains(name), "{error}");
    };
    refused(RestartStrategy::FixedDelay(FixedDelay { attempts: 0, delay: SECOND }), "fixed-delay attempts");
    let rate = FailureRate::default();
    refused(RestartStrategy::FailureRate(FailureRate { failures: 0, ..rate }), "failures");
    refused(RestartStrategy::FailureRate(FailureRate { interval: Duration::ZERO, ..rate }), "interval");
    let growing = ExponentialDelay::default();
    let wrong = [
        (ExponentialDelay { initial: Duration::ZERO, ..growing }, "initial"),
        (ExponentialDelay { attempts: Some(0), ..growing }, "attempts"),
        (ExponentialDelay { factor: 0.9, ..growing }, "factor"),
        (ExponentialDelay { factor: f64::INFINITY, ..growing }, "factor"),
        (ExponentialDelay { jitter: 1.1, ..growing }, "jitter"),
        (ExponentialDelay { max: Duration::ZERO, ..growing }, "max"),
    ];
    for (settings, name) in wrong {
        refused(RestartStrategy::ExponentialDelay(settings), name);
    }
    for checkpoints in [false, true] {
        assert!(RestartStrategy::default_with(checkpoints).check().is_ok());
    }
}

#[test]
fn damage_counts_as_a_failure_like_every_other() {
    let settings = FixedDelay { attempts: 2, ..FixedDelay::default() };
    let mut state = RestartState::new(RestartStrategy::FixedDelay(settings));
    let mut damage = |seconds| state.on_damage(at(seconds), Error::corrupt("a run is damaged"), 0.0);
    assert!(matches!(damage(1), RestartDecision::Restart { .. }));
    assert!(matches!(damage(2), RestartDecision::Restart { .. }));
    let RestartDecision::Fail { why } = damage(3) else { panic!("it restarts for ever") };
    assert_eq!(why.kind(), ErrorKind::Corrupt);
    assert!(why.to_string().contains("a run is damaged"), "{why}");
    assert_eq!(state.restarts(), 2);
    assert!(matches!(state.on_failure(at(4), broken(), 0.0), RestartDecision::Fail { .. }));
}

#[test]
fn delays_are_told_in_milliseconds() {
    for (nanos, told) in [
        (0, "0ms"),
        (499_999, "0ms"),
        (500_000, "1ms"),
        (100_000_000, "100ms"),
        (1_053_219_342, "1.053s"),
        (1_000_000_000, "1s"),
        (90_000_000_001, "90s"),
    ] {
        assert_eq!(rounded(Duration::from_nanos(nanos)), told, "{nanos}");
    }
}
