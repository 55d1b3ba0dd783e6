//! One `sink` method for both kinds of sinks: a type that is a [`Sink`] or a [`TwoPhaseSink`] is [`IntoSink`].

use std::sync::Arc;

use super::{
    erased::AnySink,
    sink::{Sink, TwoPhaseSink},
};
use crate::operators::sink;

/// What [`Stream::sink`](super::stream::Stream::sink) takes. Nobody implements it: write a [`Sink`] or a
/// [`TwoPhaseSink`].
///
/// `Guarantee` tells the two apart for the compiler and is never named: a type is one or the other.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sink for records of type `{T}`",
    label = "the stream carries `{T}`",
    note = "a sink implements `TwoPhaseSink` (exactly once) or `Sink` (at least once), with `{T}` as its `In`"
)]
pub trait IntoSink<T, Guarantee> {
    /// The sink, its types erased.
    #[doc(hidden)]
    fn into_sink(self) -> Arc<dyn AnySink>;
}

/// Marks plain sinks.
#[derive(Debug)]
pub enum AtLeastOnce {}

/// Marks two-phase sinks.
#[derive(Debug)]
pub enum ExactlyOnce {}

#[diagnostic::do_not_recommend]
impl<S: Sink> IntoSink<S::In, AtLeastOnce> for S {
    fn into_sink(self) -> Arc<dyn AnySink> {
        sink::plain(self)
    }
}

#[diagnostic::do_not_recommend]
impl<S: TwoPhaseSink> IntoSink<S::In, ExactlyOnce> for S {
    fn into_sink(self) -> Arc<dyn AnySink> {
        sink::two_phase(self)
    }
}
