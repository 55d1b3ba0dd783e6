//! The function that can do everything: [`ProcessFunction`] with keyed state, timers and side outputs, and the
//! [`Context`] through which it reaches them. Run by `operators/process.rs`, one record or timer at a time.

use std::cell::OnceCell;

use statebackend::{KeyRef, KeyedContext, KeyedState};
use types::{Error, Result, Timestamp, ordered};

use super::{
    data::{Data, Key},
    declare::{Declarations, SideOutput},
};
use crate::operators::{list_state::Lists, operator::RuntimeContext, process::Parts};

/// A function over the records of a stream, with state.
///
/// On a keyed stream all state and timers belong to the current record's key. On a stream without key, `Key` is `()`,
/// and only operator list state may be declared.
///
/// Records and timers come one at a time. Event-time timers fire in time order when the watermark passes them, before
/// the watermark goes on. Each subtask works on a clone of its own.
///
/// ```
/// use std::time::Duration;
/// use tidegate_engine::prelude::*;
///
/// /// Emits a word's count once no more of it arrived for `gap` of event time.
/// #[derive(Clone)]
/// struct CountUntilQuiet { gap: Duration }
///
/// struct Cells { count: ValueState<u64>, deadline: ValueState<Timestamp> }
///
/// impl ProcessFunction for CountUntilQuiet {
///     type Key = String;
///     type In = String;
///     type Out = (String, u64);
///     type State = Cells;
///
///     fn declare(states: &mut Declarations) -> Cells {
///         Cells { count: states.value("count"), deadline: states.value("deadline") }
///     }
///
///     fn process(&mut self, _word: String, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
///         let count = cells.count.get(ctx)?.unwrap_or(0);
///         cells.count.set(ctx, count + 1)?;
///         let deadline = ctx.timestamp() + self.gap;
///         if let Some(earlier) = cells.deadline.replace(ctx, deadline)? {
///             ctx.timers().delete(earlier)?;
///         }
///         ctx.timers().register(deadline)
///     }
///
///     fn on_timer(&mut self, _at: Timestamp, cells: &Cells, ctx: &mut Context<'_, Self>) -> Result<()> {
///         let Some(count) = cells.count.take(ctx)? else { return Ok(()) };
///         ctx.emit((ctx.key().clone(), count));
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a process function",
    note = "implement `ProcessFunction` for it: `declare` its state, then `process` each record"
)]
pub trait ProcessFunction: Clone + Send + Sync + Sized + 'static {
    /// The key of the stream it works on; `()` without one.
    type Key: Key;
    /// The records it takes.
    type In: Data;
    /// The records it emits.
    type Out: Data;
    /// The handles of its state and side outputs; `()` if it has none.
    type State: Send + 'static;

    /// Declares state and side outputs. Called when the job is built and again for each subtask; must always declare
    /// the same.
    fn declare(states: &mut Declarations) -> Self::State;

    /// Called once, before the first record and before state is restored.
    ///
    /// # Errors
    /// The attempt fails, and the restart strategy decides.
    fn open(&mut self, _context: &RuntimeContext) -> Result<()> {
        Ok(())
    }

    /// Called for each record.
    ///
    /// # Errors
    /// The attempt fails, and the restart strategy decides.
    fn process(
        &mut self,
        record: Self::In,
        state: &Self::State,
        context: &mut Context<'_, Self>,
    ) -> Result<()>;

    /// Called for each event-time timer, once the watermark has reached `at`. What it emits has the event time `at`.
    ///
    /// # Errors
    /// The attempt fails, and the restart strategy decides.
    fn on_timer(
        &mut self,
        _at: Timestamp,
        _state: &Self::State,
        _context: &mut Context<'_, Self>,
    ) -> Result<()> {
        Ok(())
    }

    /// Called for each processing-time timer, at or after `at` on the wall clock. What it emits has no event time.
    ///
    /// # Errors
    /// The attempt fails, and the restart strategy decides.
    fn on_processing_timer(
        &mut self,
        _at: Timestamp,
        _state: &Self::State,
        _context: &mut Context<'_, Self>,
    ) -> Result<()> {
        Ok(())
    }

    /// Called once after the last record of a job that finishes or is stopped; not after a failure.
    ///
    /// # Errors
    /// Told, and nothing else: everything is committed by now, and the job's end is in the history.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What a [`ProcessFunction`] reaches while it works on one record or timer.
pub struct Context<'a, F: ProcessFunction> {
    parts: &'a mut Parts<F::Out>,
    key: KeyRef<'a>,
    decoded: OnceCell<F::Key>,
    time: Option<Timestamp>,
}

impl<'a, F: ProcessFunction> Context<'a, F> {
    pub(crate) fn new(parts: &'a mut Parts<F::Out>, key: KeyRef<'a>, time: Option<Timestamp>) -> Self {
        Self { parts, key, decoded: OnceCell::new(), time }
    }

    /// The key of the record or timer. Decoded when it is first asked for.
    ///
    /// # Panics
    /// If the key type does not read back what it writes.
    #[must_use]
    pub fn key(&self) -> &F::Key {
        self.decoded.get_or_init(|| match ordered::decode(self.key.bytes) {
            Ok(key) => key,
            Err(error) => panic!("the key type does not read back what it writes: {error}"),
        })
    }

    /// The event time of the record or timer; [`Timestamp::MIN`] for a record without one and for a processing-time
    /// timer.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        self.time.unwrap_or(Timestamp::MIN)
    }

    /// The current watermark: no record with this event time or an earlier one is expected any more.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.parts.watermark
    }

    /// The wall clock.
    #[must_use]
    pub fn processing_time(&self) -> Timestamp {
        self.parts.runtime.env.wall()
    }

    /// Emits a record with the event time of the one being worked on.
    #[inline]
    pub fn emit(&mut self, record: F::Out) {
        self.parts.emit(record, self.time);
    }

    /// Emits a record into a side output, with the event time of the one being worked on.
    #[inline]
    pub fn emit_to<T: Data>(&mut self, side: SideOutput<T>, record: T) {
        self.parts.emit_to(side.index, record, self.time);
    }

    /// The timers of the current key.
    pub fn timers(&mut self) -> Timers<'_> {
        Timers { keyed: self.parts.keyed.as_mut(), key: self.key }
    }

    pub(crate) fn lists(&self) -> &Lists {
        &self.parts.lists
    }

    pub(crate) fn lists_mut(&mut self) -> &mut Lists {
        &mut self.parts.lists
    }

    /// Where the function runs, its metrics and accumulators.
    #[must_use]
    pub fn runtime(&self) -> &RuntimeContext {
        &self.parts.runtime
    }
}

impl<F: ProcessFunction> KeyedContext for Context<'_, F> {
    #[inline]
    fn keyed(&mut self) -> (KeyRef<'_>, &mut KeyedState) {
        let keyed = self.parts.keyed.as_mut();
        (self.key, keyed.expect("keyed state on a stream without key is refused when the job is built"))
    }

    fn event_time(&self) -> Option<Timestamp> {
        self.time
    }
}

/// The timers of one key. A timer is its time: registering it twice is registering it once.
pub struct Timers<'a> {
    keyed: Option<&'a mut KeyedState>,
    key: KeyRef<'a>,
}

impl Timers<'_> {
    /// Registers an event-time timer. One at or before the watermark fires when the watermark next rises.
    ///
    /// # Errors
    /// `InvalidJob` on a stream without key.
    pub fn register(&mut self, at: Timestamp) -> Result<()> {
        let key = self.key;
        self.keyed()?.register_event_timer(key, at);
        Ok(())
    }

    /// Deletes an event-time timer; does nothing if there is none.
    ///
    /// # Errors
    /// `InvalidJob` on a stream without key.
    pub fn delete(&mut self, at: Timestamp) -> Result<()> {
        let key = self.key;
        self.keyed()?.delete_event_timer(key, at);
        Ok(())
    }

    /// Registers a processing-time timer. One in the past fires at once, also after a restore.
    ///
    /// # Errors
    /// `InvalidJob` on a stream without key.
    pub fn register_processing(&mut self, at: Timestamp) -> Result<()> {
        let key = self.key;
        self.keyed()?.register_processing_timer(key, at);
        Ok(())
    }

    /// Deletes a processing-time timer; does nothing if there is none.
    ///
    /// # Errors
    /// `InvalidJob` on a stream without key.
    pub fn delete_processing(&mut self, at: Timestamp) -> Result<()> {
        let key = self.key;
        self.keyed()?.delete_processing_timer(key, at);
        Ok(())
    }

    fn keyed(&mut self) -> Result<&mut KeyedState> {
        let missing = || Error::invalid_job("timers belong to a key: call key_by before process");
        self.keyed.as_deref_mut().ok_or_else(missing)
    }
}
