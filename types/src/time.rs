//! Event time and wall-clock time: milliseconds since 1970-01-01T00:00:00Z, signed.

use std::{fmt, ops, time::Duration};

use serde::{Deserialize, Serialize};

/// A point in event time or wall-clock time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before everything: the watermark of a stream that has seen nothing.
    pub const MIN: Self = Self(i64::MIN);
    /// After everything: the watermark of a stream that has ended.
    pub const MAX: Self = Self(i64::MAX);
}

impl ops::Add<Duration> for Timestamp {
    type Output = Self;
    /// Saturates, so that `MAX` stays `MAX`.
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl ops::Sub<Duration> for Timestamp {
    type Output = Self;
    /// Saturates, so that `MIN` stays `MIN`.
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MIN => f.write_str("-inf"),
            Self::MAX => f.write_str("+inf"),
            Self(ms) => write!(f, "{ms}ms"),
        }
    }
}
