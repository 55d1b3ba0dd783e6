//! How a stream learns of event time: [`WatermarkStrategy`], run by `operators/watermark.rs`.

use std::{fmt, sync::Arc, time::Duration};

use types::Timestamp;

/// Says when no record with an earlier event time is expected any more.
///
/// Watermarks are made at the job's watermark interval (200 ms if it says nothing else), punctuated ones at once. They
/// replace those that come from further up; so does idleness.
///
/// A watermark outlives failures and restores: what was late stays late, also where a source of another uid takes the old
/// one's place. After a drain and after the end of the input event time begins anew.
///
/// ```
/// use std::time::Duration;
/// use tidegate_engine::prelude::*;
///
/// let strategy: WatermarkStrategy<u64> = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(5))
///     .idle_after(Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct WatermarkStrategy<T> {
    pub(crate) rule: Rule<T>,
    pub(crate) idle_after: Option<Duration>,
}

pub(crate) enum Rule<T> {
    /// The greatest event time so far, less this.
    Behind(Duration),
    /// What a record says.
    Punctuated(Arc<Punctuation<T>>),
}

/// Finds the watermark that a record carries.
pub(crate) type Punctuation<T> = dyn Fn(&T) -> Option<Timestamp> + Send + Sync;

impl<T> Clone for Rule<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Behind(bound) => Self::Behind(*bound),
            Self::Punctuated(found) => Self::Punctuated(Arc::clone(found)),
        }
    }
}

impl<T> WatermarkStrategy<T> {
    /// Event times never fall within one subtask: the watermark is the greatest one seen, less 1 ms.
    #[must_use]
    pub fn monotonous() -> Self {
        Self::bounded_out_of_orderness(Duration::ZERO)
    }

    /// A record comes at most `bound` of event time late: the watermark is the greatest event time seen, less `bound`
    /// and 1 ms.
    #[must_use]
    pub fn bounded_out_of_orderness(bound: Duration) -> Self {
        Self { rule: Rule::Behind(bound), idle_after: None }
    }

    /// Some records say themselves what the watermark is after them.
    #[must_use]
    pub fn punctuated(found: impl Fn(&T) -> Option<Timestamp> + Send + Sync + 'static) -> Self {
        Self { rule: Rule::Punctuated(Arc::new(found)), idle_after: None }
    }

    /// A subtask that has seen no record for `span` no longer holds back the others' watermarks.
    #[must_use]
    pub fn idle_after(mut self, span: Duration) -> Self {
        self.idle_after = Some(span);
        self
    }
}

impl<T> fmt::Debug for WatermarkStrategy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Behind(bound) => write!(f, "watermarks {bound:?} behind")?,
            Rule::Punctuated(_) => f.write_str("punctuated watermarks")?,
        }
        self.idle_after.map_or(Ok(()), |span| write!(f, ", idle after {span:?}"))
    }
}
