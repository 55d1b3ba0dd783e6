//! The operator that runs a [`ProcessFunction`]: records, event-time and processing-time timers, in slices of about a
//! batch, so that what many timers emit at once stays bounded. Processing-time timers that are due take turns with
//! records and barriers, slice by slice. A watermark is one step, however many timers it fires: what came behind it, a
//! barrier too, waits for the last of them.

use checkpoint::manifest::ListPart;
use statebackend::{KeyRef, KeyedState, OwnedKey};
use types::{KeyGroup, Result, TimeDomain, Timestamp};

use super::{
    list_state::{self, Lists},
    operator::{Emitted, Operator, OutBatch, Progress, RuntimeContext},
    side::{self, SideBuffers},
};
use crate::{
    api::{
        data::Data,
        declare::{Keyed, declare},
        process::{Context, ProcessFunction},
    },
    record::{AnyBatch, BatchBuilder},
};

/// The key of records on a stream without key.
const NO_KEY: KeyRef<'static> = KeyRef { hash: 0, group: KeyGroup(0), bytes: &[] };

/// Everything a [`Context`] reaches.
pub(crate) struct Parts<Out> {
    /// There on keyed streams.
    pub(crate) keyed: Option<KeyedState>,
    pub(crate) lists: Lists,
    pub(crate) watermark: Timestamp,
    pub(crate) runtime: RuntimeContext,
    out: BatchBuilder<Out>,
    sides: SideBuffers,
    /// Records emitted in the running call, side outputs included.
    emitted: usize,
}

impl<Out: Data> Parts<Out> {
    #[inline]
    pub(crate) fn emit(&mut self, record: Out, time: Option<Timestamp>) {
        self.out.push(record, time);
        self.emitted += 1;
    }

    pub(crate) fn emit_to<T: Data>(&mut self, side: usize, record: T, time: Option<Timestamp>) {
        let buffer = self.sides[side].as_any().downcast_mut::<BatchBuilder<T>>();
        buffer.expect("a handle has the type of its declaration").push(record, time);
        self.emitted += 1;
    }

    fn is_full(&self) -> bool {
        self.emitted >= self.runtime.batch_records
    }

    fn take_emitted(&mut self) -> Emitted {
        self.emitted = 0;
        let main = (!self.out.is_empty()).then(|| OutBatch::new(self.out.take()));
        Emitted { main, sides: side::take_all(&mut self.sides), mark: None }
    }

    /// Says to state that expires in processing time how late it is: before any call of the user's function.
    fn look_at_the_clock(&mut self) {
        if let Some(keyed) = &mut self.keyed
            && keyed.expires(TimeDomain::ProcessingTime)
        {
            keyed.advance(TimeDomain::ProcessingTime, self.runtime.env.wall());
        }
    }
}

pub(crate) struct Process<F: ProcessFunction> {
    function: F,
    state: F::State,
    parts: Parts<F::Out>,
}

impl<F: ProcessFunction> Process<F> {
    /// # Errors
    /// `InvalidJob` for declarations that cannot be.
    pub(crate) fn new(function: F, keyed: Keyed, context: &RuntimeContext) -> Result<Self> {
        let (state, declarations) = declare::<F>(keyed);
        let declared = declarations.finish(keyed)?;
        let (groups, first) = (context.groups, context.first_checkpoint);
        let parts = Parts {
            keyed: declared.keyed.map(|declared| KeyedState::new(declared, groups, first)),
            lists: declared.lists,
            watermark: Timestamp::MIN,
            runtime: context.clone(),
            out: BatchBuilder::default(),
            sides: declared.side_buffers,
            emitted: 0,
        };
        Ok(Self { function, state, parts })
    }

    /// Fires the timers that `next` finds, one slice of them.
    fn fire(
        &mut self,
        next: impl Fn(&mut KeyedState) -> Option<(Timestamp, OwnedKey)>,
        call: impl Fn(&mut F, Timestamp, &F::State, &mut Context<'_, F>) -> Result<()>,
        time: impl Fn(Timestamp) -> Option<Timestamp>,
    ) -> Result<(Emitted, Progress)> {
        let slice = self.parts.runtime.batch_records;
        for _ in 0..slice {
            let Some((at, key)) = self.parts.keyed.as_mut().and_then(&next) else {
                return Ok((self.parts.take_emitted(), Progress::Done));
            };
            self.parts.runtime.cancellation.check()?;
            let mut context = Context::new(&mut self.parts, key.as_ref(), time(at));
            call(&mut self.function, at, &self.state, &mut context)?;
            if self.parts.is_full() {
                break;
            }
        }
        Ok((self.parts.take_emitted(), Progress::More))
    }
}

impl<F: ProcessFunction> Operator for Process<F> {
    fn open(&mut self, context: &RuntimeContext) -> Result<()> {
        self.function.open(context)
    }

    fn process(&mut self, batch: &mut dyn AnyBatch) -> Result<Emitted> {
        let batch = batch.typed::<F::In>();
        self.parts.look_at_the_clock();
        if let Some(keyed) = &mut self.parts.keyed {
            keyed.prepare(batch.keys())?;
        }
        let keyed = self.parts.keyed.is_some();
        while !self.parts.is_full()
            && let Some(record) = batch.next()
        {
            self.parts.runtime.cancellation.check()?;
            let key = if keyed { record.key() } else { NO_KEY };
            let mut context = Context::new(&mut self.parts, key, record.time);
            self.function.process(record.value, &self.state, &mut context)?;
        }
        Ok(self.parts.take_emitted())
    }

    fn on_watermark(&mut self, watermark: Timestamp) -> Result<(Emitted, Progress)> {
        self.parts.watermark = self.parts.watermark.max(watermark);
        self.parts.look_at_the_clock();
        // State expires as time comes by: a timer sees what lives at its own time, however far the watermark has jumped.
        let next = |keyed: &mut KeyedState| {
            let timer = keyed.pop_event_timer(watermark);
            keyed.advance(TimeDomain::EventTime, timer.as_ref().map_or(watermark, |(at, _)| *at));
            timer
        };
        self.fire(next, F::on_timer, Some)
    }

    fn on_processing_time(&mut self, now: Timestamp) -> Result<(Emitted, Progress)> {
        if let Some(keyed) = &mut self.parts.keyed {
            keyed.advance(TimeDomain::ProcessingTime, now);
        }
        self.fire(|keyed| keyed.pop_processing_timer(now), F::on_processing_timer, |_| None)
    }

    fn next_processing_timer(&self) -> Option<Timestamp> {
        self.parts.keyed.as_ref()?.next_processing_timer()
    }

    fn keyed(&mut self) -> Option<&mut KeyedState> {
        self.parts.keyed.as_mut()
    }

    fn lists(&mut self) -> Result<Vec<ListPart>> {
        let mut lists = list_state::snapshot(&self.parts.lists)?;
        if let Some(clocks) = self.parts.keyed.as_ref().and_then(KeyedState::expiry_clocks) {
            lists.push(ListPart::of_expiry_clocks(&clocks)?);
        }
        Ok(lists)
    }

    fn restore_lists(&mut self, mut lists: Vec<ListPart>) -> Result<()> {
        for clocks in lists.extract_if(.., |part| part.is_expiry_clocks()) {
            if let Some(keyed) = &mut self.parts.keyed {
                keyed.restore_expiry_clocks(&clocks.expiry_clocks()?);
            }
        }
        list_state::restore(&mut self.parts.lists, &lists)
    }

    fn restore_watermark(&mut self, watermark: Timestamp) {
        self.parts.watermark = watermark;
        if let Some(keyed) = &mut self.parts.keyed {
            keyed.advance(TimeDomain::EventTime, watermark);
        }
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

#[cfg(test)]
mod tests;
