//! The texts of settings: numbers, times, sizes, restart strategies. Each error says what may stand there.

use std::{collections::BTreeMap, time::Duration};

use checkpoint::restart::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategy};
use types::{Error, Result};

/// A number of at least 1.
pub(super) fn count(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(0) | Err(_) => Err(Error::invalid_job("expected a number of 1 or more")),
        Ok(number) => Ok(number),
    }
}

/// What `value` reads, or `off`.
pub(super) fn optional<T>(text: &str, value: impl Fn(&str) -> Result<T>) -> Result<Option<T>> {
    if text == "off" {
        return Ok(None);
    }
    value(text).map(Some).map_err(|error| Error::invalid_job(format!("{}, or off", error.message())))
}

/// A duration of more than nothing.
pub(super) fn some_time(text: &str) -> Result<Duration> {
    match duration(text)? {
        Duration::ZERO => Err(Error::invalid_job("expected a time of more than 0")),
        span => Ok(span),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Error::invalid_job("expected true or false")),
    }
}

/// A time with its unit.
pub(super) fn duration(text: &str) -> Result<Duration> {
    humantime::parse_duration(text)
        .map_err(|_| Error::invalid_job("expected a time, a number and a unit such as 500ms, 10s, 5m"))
}

/// A number of bytes: plain, or with KiB, MiB, GiB.
pub(super) fn bytes(text: &str) -> Result<usize> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: usize = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(Error::invalid_job("expected a number of bytes with the unit B, KiB, MiB or GiB")),
    };
    let number: usize =
        digits.trim().parse().map_err(|_| Error::invalid_job("expected a number of bytes"))?;
    number
        .checked_mul(unit)
        .filter(|it| *it > 0)
        .ok_or_else(|| Error::invalid_job("expected a number of 1 byte or more that this machine can count"))
}

/// `NAME=VALUE;NAME=VALUE`; a value may hold more of them in braces.
pub(super) fn store_options(text: &str) -> Result<BTreeMap<String, String>> {
    let mut depth = 0_usize;
    let parts = text.split(|letter: char| {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        letter == ';' && depth == 0
    });
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    let options = parts.map(|part| match part.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(Error::invalid_job(format!("expected NAME=VALUE, not {part:?}"))),
    });
    options.collect()
}

/// `NAME` or `NAME:VALUE:...`; values left out are the defaults.
pub(super) fn restart(text: &str) -> Result<RestartStrategy> {
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let mut part = |name: &'static str| Part { name, text: parts.next().filter(|part| !part.is_empty()) };
    let strategy = match name {
        "none" => RestartStrategy::None,
        "fixed-delay" => {
            let default = FixedDelay::default();
            RestartStrategy::FixedDelay(FixedDelay {
                attempts: part("ATTEMPTS").or(default.attempts, count)?,
                delay: part("DELAY").or(default.delay, duration)?,
            })
        }
        "failure-rate" => {
            let default = FailureRate::default();
            RestartStrategy::FailureRate(FailureRate {
                failures: part("FAILURES").or(default.failures, count)?,
                interval: part("INTERVAL").or(default.interval, duration)?,
                delay: part("DELAY").or(default.delay, duration)?,
            })
        }
        "exponential-delay" => {
            let default = ExponentialDelay::default();
            RestartStrategy::ExponentialDelay(ExponentialDelay {
                initial: part("INITIAL").or(default.initial, duration)?,
                factor: part("FACTOR").or(default.factor, number)?,
                max: part("MAX").or(default.max, duration)?,
                reset: part("RESET").or(default.reset, duration)?,
                jitter: part("JITTER").or(default.jitter, number)?,
                attempts: part("ATTEMPTS").or(default.attempts, |text| optional(text, count))?,
            })
        }
        _ => return Err(Error::invalid_job(format!("there is no restart strategy {name:?}"))),
    };
    match parts.next() {
        None => strategy.check().map(|()| strategy),
        Some(more) => Err(Error::invalid_job(format!("{more:?} is one value too many"))),
    }
}

/// One value of a restart strategy, under the name that it has in the help; without a text it is the default.
struct Part<'a> {
    name: &'static str,
    text: Option<&'a str>,
}

impl Part<'_> {
    fn or<T>(&self, default: T, read: impl Fn(&str) -> Result<T>) -> Result<T> {
        let Some(text) = self.text else { return Ok(default) };
        read(text)
            .map_err(|error| Error::invalid_job(format!("{} is {text:?}: {}", self.name, error.message())))
    }
}

fn number(text: &str) -> Result<f64> {
    text.parse().map_err(|_| Error::invalid_job("expected a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values() -> Result<()> {
        assert_eq!(duration("1m 500ms")?, Duration::from_millis(60_500));
        assert_eq!(bytes("2MiB")?, 2 << 20);
        assert_eq!(bytes("17")?, 17);
        assert_eq!(optional("off", duration)?, None);
        let fixed = FixedDelay { attempts: 5, delay: Duration::from_millis(100) };
        assert_eq!(restart("fixed-delay:5:100ms")?, RestartStrategy::FixedDelay(fixed));
        assert_eq!(restart("none")?, RestartStrategy::None);
        Ok(())
    }

    #[test]
    fn nonsense_is_refused_with_what_may_stand_there() {
        let message = |result: Result<()>| result.expect_err("it is nonsense").message().to_owned();
        assert!(message(duration("10").map(drop)).contains("unit"));
        assert!(message(bytes("10 parsecs").map(drop)).contains("KiB"));
        assert!(message(count("0").map(drop)).contains("1 or more"));
        assert!(message(some_time("0s").map(drop)).contains("more than 0"));
        assert!(message(restart("sometimes").map(drop)).contains("no restart strategy"));
        assert!(message(restart("none:1").map(drop)).contains("too many"));
    }
}

#[cfg(test)]
mod restart_tests;
