//! Functions with a life: [`RichFunction`], opened with its runtime context and closed at the end. The closures of
//! `map`, `filter` and `flat_map` are the same thing without a life, so that one operator runs them all.

use std::{marker::PhantomData, sync::Arc};

use types::{Result, Timestamp};

use super::data::Data;
use crate::{operators::operator::RuntimeContext, record::BatchBuilder};

/// A function over records that needs to know where it runs: metrics, accumulators, something to open and close.
///
/// It owns no state that survives a failure; what must survive belongs into a
/// [`ProcessFunction`](super::process::ProcessFunction). Each subtask works on a clone of its own.
///
/// ```
/// use tidegate_engine::prelude::*;
///
/// #[derive(Clone, Default)]
/// struct Parse { refused: Option<Accumulator> }
///
/// impl RichFunction for Parse {
///     type In = String;
///     type Out = u64;
///     fn open(&mut self, context: &RuntimeContext) -> Result<()> {
///         self.refused = Some(context.accumulators.get("refused"));
///         Ok(())
///     }
///     fn call(&mut self, line: String, out: &mut Collector<'_, u64>) -> Result<()> {
///         match line.parse() {
///             Ok(number) => out.emit(number),
///             Err(_) => self.refused.iter().for_each(|refused| refused.add(1)),
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait RichFunction: Clone + Send + Sync + 'static {
    /// The records it takes.
    type In: Data;
    /// The records it emits.
    type Out: Data;

    /// Called once, before the first record.
    ///
    /// # Errors
    /// The attempt fails, and the restart strategy decides.
    fn open(&mut self, _context: &RuntimeContext) -> Result<()> {
        Ok(())
    }

    /// Called for each record. What it emits carries the record's event time.
    ///
    /// # Errors
    /// The attempt fails, and the restart strategy decides.
    fn call(&mut self, record: Self::In, out: &mut Collector<'_, Self::Out>) -> Result<()>;

    /// Called once after the last record of a job that finishes or is stopped; not after a failure.
    ///
    /// # Errors
    /// Told, and nothing else: everything is committed by now, and the job's end is in the history.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Where a function puts its records.
pub struct Collector<'a, T> {
    batch: &'a mut BatchBuilder<T>,
    time: Option<Timestamp>,
}

impl<'a, T> Collector<'a, T> {
    pub(crate) fn new(batch: &'a mut BatchBuilder<T>, time: Option<Timestamp>) -> Self {
        Self { batch, time }
    }

    /// Emits a record with the event time of the one being worked on.
    #[inline]
    pub fn emit(&mut self, record: T) {
        self.batch.push(record, self.time);
    }

    /// Emits records with the event time of the one being worked on.
    #[inline]
    pub fn extend(&mut self, records: impl IntoIterator<Item = T>) {
        self.batch.extend(records, self.time);
    }

    /// The event time of the record being worked on.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        self.time
    }
}

/// A closure as a [`RichFunction`].
pub(crate) struct FromFn<In, Out, F> {
    call: Arc<F>,
    types: PhantomData<fn(In) -> Out>,
}

impl<In, Out, F> FromFn<In, Out, F>
where
    F: Fn(In, &mut Collector<'_, Out>),
{
    pub(crate) fn new(call: F) -> Self {
        Self { call: Arc::new(call), types: PhantomData }
    }
}

impl<In, Out, F> Clone for FromFn<In, Out, F> {
    fn clone(&self) -> Self {
        Self { call: Arc::clone(&self.call), types: PhantomData }
    }
}

impl<In, Out, F> RichFunction for FromFn<In, Out, F>
where
    In: Data,
    Out: Data,
    F: Fn(In, &mut Collector<'_, Out>) + Send + Sync + 'static,
{
    type In = In;
    type Out = Out;

    #[inline]
    fn call(&mut self, record: In, out: &mut Collector<'_, Out>) -> Result<()> {
        (self.call)(record, out);
        Ok(())
    }
}
