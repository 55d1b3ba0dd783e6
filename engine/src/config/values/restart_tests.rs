//! Every parameter of every restart strategy finds its way from the text of the configuration to the strategy.

use std::time::Duration;

use checkpoint::restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategy};
use proptest::prelude::*;

use crate::config::{Settings, settings::SETTINGS};

/// The strategy of a job whose configuration says `restart = text`.
fn configured(text: &str) -> RestartStrategy {
    let mut settings = Settings::default();
    settings.set("restart", text, "tidegate.toml").expect("the text is understood");
    settings.checked().expect("the values have a meaning").restart_strategy()
}

fn text(name: &str, values: &[String]) -> String {
    values.iter().fold(name.to_owned(), |text, value| text + ":" + value)
}

fn time(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

fn millis(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

#[test]
fn each_parameter_has_its_place_and_the_rest_its_default() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    let fixed = |attempts, delay| RestartStrategy::FixedDelay(FixedDelay { attempts, delay });
    let rate =
        |failures, interval, delay| RestartStrategy::FailureRate(FailureRate { failures, interval, delay });
    let default = ExponentialDelay::default();
    let growing = RestartStrategy::ExponentialDelay;
    let table = [
        ("none", RestartStrategy::None),
        ("fixed-delay", fixed(1, second)),
        ("fixed-delay:7", fixed(7, second)),
        ("fixed-delay:7:20ms", fixed(7, Duration::from_millis(20))),
        ("fixed-delay::2m", fixed(1, 2 * minute)),
        ("failure-rate", rate(1, minute, second)),
        ("failure-rate:4", rate(4, minute, second)),
        ("failure-rate:4:2m", rate(4, 2 * minute, second)),
        ("failure-rate:4:2m:0s", rate(4, 2 * minute, Duration::ZERO)),
        ("failure-rate:::9s", rate(1, minute, 9 * second)),
        ("exponential-delay", growing(default)),
        ("exponential-delay:2s", growing(ExponentialDelay { initial: 2 * second, ..default })),
        ("exponential-delay::3", growing(ExponentialDelay { factor: 3.0, ..default })),
        ("exponential-delay:::5m", growing(ExponentialDelay { max: 5 * minute, ..default })),
        ("exponential-delay::::7m", growing(ExponentialDelay { reset: 7 * minute, ..default })),
        ("exponential-delay:::::0.5", growing(ExponentialDelay { jitter: 0.5, ..default })),
        ("exponential-delay::::::8", growing(ExponentialDelay { attempts: Some(8), ..default })),
        ("exponential-delay::::::off", growing(ExponentialDelay { attempts: None, ..default })),
        (
            "exponential-delay:2s:3:5m:7m:0:8",
            growing(ExponentialDelay {
                initial: 2 * second,
                factor: 3.0,
                max: 5 * minute,
                reset: 7 * minute,
                jitter: 0.0,
                attempts: Some(8),
            }),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(configured(text), expected, "{text}");
    }
}

#[test]
fn the_help_names_each_value_and_the_default() {
    let help = SETTINGS.iter().find(|setting| setting.name == "restart").expect("it is a setting").help;
    let (_, default) = help.split_once('(').expect("the default stands in parentheses");
    let (text, rest) = default.split_once(' ').expect("with what it depends on");
    assert_eq!(rest, "with checkpoints, none without)");
    assert_eq!(configured(text), RestartStrategy::default_with(true));
    assert_eq!(RestartStrategy::default_with(false), configured("none"));
    let values = help.split_once("exponential-delay[").and_then(|(_, values)| values.split_once(']'));
    let (values, _) = values.expect("its values stand in brackets");
    assert_eq!(values.matches(':').count(), text.matches(':').count(), "{values} against {text}");
}

#[test]
fn a_value_without_a_meaning_is_refused_wherever_it_stands() {
    let refused = [
        ("fixed-delay:0", "1 or more"),
        ("fixed-delay:1:5", "unit"),
        ("fixed-delay:1:5s:1", "too many"),
        ("failure-rate:many", "1 or more"),
        ("failure-rate:1:0s", "interval"),
        ("failure-rate:1:1m:1", "unit"),
        ("exponential-delay:0s", "initial"),
        ("exponential-delay:1s:0.5", "factor"),
        ("exponential-delay:1s:inf", "factor"),
        ("exponential-delay:5s:2:1s", "max"),
        ("exponential-delay:1s:2:1m:1h:2", "jitter"),
        ("exponential-delay:1s:2:1m:1h:much", "JITTER is \"much\": expected a number;"),
        ("exponential-delay:1s:2:1m:1h:0:0", "1 or more"),
        ("exponential-delay:1s:2:1m:1h:0:none", "1 or more"),
        ("exponential-delay:1s:2:1m:1h:0:3:1", "too many"),
    ];
    for (text, word) in refused {
        let mut settings = Settings::default();
        let error =
            settings.set("restart", text, "tidegate.toml").and_then(|()| settings.checked().map(drop));
        let message = error.expect_err(text).message().to_owned();
        assert!(message.contains(word), "{text}: {message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fixed_delay_is_read_as_it_was_written(attempts in 1..u32::MAX, delay in millis(0..100_000_000)) {
        let written = text("fixed-delay", &[attempts.to_string(), time(delay)]);
        prop_assert_eq!(configured(&written), RestartStrategy::FixedDelay(FixedDelay { attempts, delay }));
    }

    #[test]
    fn failure_rate_is_read_as_it_was_written(
        failures in 1..u32::MAX, interval in millis(1..100_000_000), delay in millis(0..100_000_000),
    ) {
        let written = text("failure-rate", &[failures.to_string(), time(interval), time(delay)]);
        let expected = FailureRate { failures, interval, delay };
        prop_assert_eq!(configured(&written), RestartStrategy::FailureRate(expected));
    }

    #[test]
    fn exponential_delay_is_read_as_it_was_written(
        initial in millis(1..100_000), factor in 1.0..100.0_f64, more in millis(0..100_000_000),
        reset in millis(0..100_000_000), jitter in 0.0..=1.0_f64, attempts in prop::option::of(1..u32::MAX),
    ) {
        let max = initial + more;
        let number = attempts.map_or("off".to_owned(), |number| number.to_string());
        let values = [time(initial), factor.to_string(), time(max), time(reset), jitter.to_string(), number];
        let expected = ExponentialDelay { initial, factor, max, reset, jitter, attempts };
        prop_assert_eq!(
            configured(&text("exponential-delay", &values)), RestartStrategy::ExponentialDelay(expected)
        );
    }
}
