//! The operators of one task, run depth first: a batch is pushed on until what it became has left the chain, before
//! the next one is taken. Nothing here waits: when a channel out must be waited for, [`Chain::step`] says so and is
//! called again. So at most about two batches are inside a chain at any moment.

use std::{collections::VecDeque, sync::Arc};

use env::{BoxFuture, Monotonic, Sender};
use statebackend::KeyedState;
use types::{Result, Timestamp};

use super::guard;
use crate::{
    api::erased::AnyOutput,
    graph::logical::Port,
    operators::operator::{Emitted, Operator, OutBatch, Progress, RuntimeContext},
    record::{AnyBatch, Element, Mark},
};

/// An operator in its chain.
pub(crate) struct ChainedOperator {
    pub(crate) context: RuntimeContext,
    pub(crate) operator: Box<dyn Operator>,
    /// The newest watermark that it sent on.
    pub(crate) watermark: Timestamp,
    /// Records taken so far in this attempt, for messages.
    records: u64,
}

impl ChainedOperator {
    pub(crate) fn new(context: RuntimeContext, operator: Box<dyn Operator>) -> Self {
        Self { context, operator, watermark: Timestamp::MIN, records: 0 }
    }

    /// Begins with the watermark that it had sent on before a restore. What comes up to it has no effect any more.
    pub(crate) fn restore_watermark(&mut self, watermark: Timestamp) {
        self.watermark = watermark;
        self.operator.restore_watermark(watermark);
    }

    /// Notes a mark that leaves it.
    fn sends(&mut self, mark: Mark) {
        if let Mark::Watermark(watermark) = mark {
            self.watermark = self.watermark.max(watermark);
        }
    }

    fn name(&self) -> &Arc<str> {
        &self.context.operator
    }
}

/// An edge out of the chain.
pub(crate) struct TaskOutput {
    /// Which operator of the chain emits into it.
    pub(crate) position: usize,
    pub(crate) port: Port,
    /// The operator that emits into it and its subtask, for messages.
    pub(crate) upstream: String,
    /// Records given to it so far in this attempt, for messages.
    pub(crate) records: u64,
    pub(crate) output: Box<dyn AnyOutput>,
    pub(crate) senders: Vec<Sender<Element>>,
}

enum Work {
    Batch(usize, OutBatch),
    Mark(usize, Mark),
}

/// What the task must do next for the chain.
pub(crate) enum Step {
    /// Nothing is inside: give it the next element.
    Idle,
    /// Elements leave: see [`Chain::send_ready`].
    Send,
    /// The sink at the end takes this batch.
    Write(Box<dyn AnyBatch>),
    /// There is more to do; call again.
    Again,
}

/// The operators between a task's input and its outputs.
pub(crate) struct Chain {
    pub(crate) operators: Vec<ChainedOperator>,
    outputs: Vec<TaskOutput>,
    /// Whether a sink stands at the end.
    sink: bool,
    /// What is inside, deepest last.
    stack: Vec<Work>,
    /// What leaves, in order: (output, target, element).
    outgoing: VecDeque<(usize, usize, Element)>,
    /// The element that waits for room in its channel. It lives here, so that it keeps its place in the line.
    sending: Option<BoxFuture<'static, ()>>,
}

impl Chain {
    pub(crate) fn new(operators: Vec<ChainedOperator>, outputs: Vec<TaskOutput>, sink: bool) -> Self {
        Self { operators, outputs, sink, stack: Vec::new(), outgoing: VecDeque::new(), sending: None }
    }

    /// Gives records to the first operator.
    pub(crate) fn push_batch(&mut self, batch: OutBatch) {
        self.stack.push(Work::Batch(0, batch));
    }

    /// Gives a mark to the first operator of an idle chain.
    pub(crate) fn push_mark(&mut self, mark: Mark) {
        self.stack.push(Work::Mark(0, mark));
    }

    /// Gives a mark to the first operator that comes out behind everything that is inside now.
    pub(crate) fn push_mark_last(&mut self, mark: Mark) {
        self.stack.insert(0, Work::Mark(0, mark));
    }

    /// Does one piece of work. `place` says where the input stands, for messages.
    ///
    /// # Errors
    /// What a user's function says, with operator, record and key in front.
    pub(crate) fn step(&mut self, place: &dyn Fn() -> String) -> Result<Step> {
        if self.is_sending() {
            return Ok(Step::Send);
        }
        match self.stack.pop() {
            None => Ok(Step::Idle),
            Some(Work::Batch(at, batch)) if at == self.operators.len() => self.leave(batch, place),
            Some(Work::Batch(at, batch)) => self.process(at, batch, place),
            Some(Work::Mark(at, mark)) if at == self.operators.len() => {
                self.send_into(mark, |output| output.port == Port::Main);
                Ok(Step::Again)
            }
            Some(Work::Mark(at, mark)) => self.pass(at, mark, place),
        }
    }

    /// Whether something is inside.
    pub(crate) fn is_busy(&self) -> bool {
        !self.stack.is_empty() || self.is_sending()
    }

    /// Whether something waits for room downstream.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some() || !self.outgoing.is_empty()
    }

    /// Whether partial batches wait for more records.
    pub(crate) fn has_partial(&self) -> bool {
        self.outputs.iter().any(|output| output.output.has_partial())
    }

    /// Sends partial batches on.
    pub(crate) fn flush(&mut self) {
        (0..self.outputs.len()).for_each(|index| self.flush_into(index));
    }

    fn flush_into(&mut self, index: usize) {
        self.outputs[index].output.flush();
        self.collect_ready(index);
    }

    /// Puts a mark behind everything that was pushed, into every channel out.
    pub(crate) fn send_mark(&mut self, mark: Mark) {
        self.send_into(mark, |_| true);
    }

    /// Puts a mark into the channels of these outputs, behind what was pushed there.
    fn send_into(&mut self, mark: Mark, takes: impl Fn(&TaskOutput) -> bool) {
        for index in 0..self.outputs.len() {
            if takes(&self.outputs[index]) {
                self.flush_into(index);
                let targets = 0..self.outputs[index].senders.len();
                self.outgoing.extend(targets.map(|target| (index, target, Element::Mark(mark))));
            }
        }
    }

    /// Waits until the element that waits for room has been sent; for ever if none does. Cancel-safe.
    pub(crate) async fn sent(&mut self) {
        match &mut self.sending {
            Some(sending) => sending.await,
            None => std::future::pending().await,
        }
        self.sending = None;
    }

    /// Sends what has room. Says whether everything is gone.
    pub(crate) fn send_ready(&mut self) -> bool {
        if self.sending.is_some() {
            return false;
        }
        while let Some((output, target, element)) = self.outgoing.pop_front() {
            let sender = &self.outputs[output].senders[target];
            match sender.try_send(element) {
                // A receiver that is gone belongs to a task that has failed: this attempt will be cancelled.
                Ok(()) | Err(env::TrySend::Closed(_)) => {}
                Err(env::TrySend::Full(element)) => {
                    let sender = sender.clone();
                    self.sending = Some(Box::pin(async move {
                        let _failed = sender.send(element).await;
                    }));
                    return false;
                }
            }
        }
        true
    }

    /// Fires processing-time timers due at `now`, first operator first. Only on an idle chain.
    ///
    /// # Errors
    /// What a user's function says.
    pub(crate) fn on_processing_time(&mut self, now: Timestamp) -> Result<bool> {
        let due = |it: &ChainedOperator| it.operator.next_processing_timer().is_some_and(|at| at <= now);
        let Some(at) = self.operators.iter().position(due) else { return Ok(false) };
        let operator = &mut self.operators[at];
        let result = guard::catch(|| operator.operator.on_processing_time(now));
        let (emitted, _) =
            result.map_err(|error| error.context(format!("operator {}, timer", operator.name())))?;
        self.emit(at, emitted, &String::new)?;
        Ok(true)
    }

    /// When the next processing-time timer is due.
    pub(crate) fn next_processing_timer(&self) -> Option<Timestamp> {
        self.operators.iter().filter_map(|it| it.operator.next_processing_timer()).min()
    }

    /// Lets watermark strategies make their marks. Only on an idle chain. Says whether there was any.
    pub(crate) fn make_marks(&mut self, now: Monotonic, ended: bool) -> bool {
        let mut made = false;
        // Pushed last first, so that a mark from further up the chain is handled before those below it.
        for at in (0..self.operators.len()).rev() {
            if let Some(mark) = self.operators[at].operator.make_mark(now, ended) {
                self.leave_with(at, mark);
                made = true;
            }
        }
        made
    }

    /// Says again what the operators had said of event time before the restore: who reads from them may have kept nothing
    /// of it, and would wait for it.
    pub(crate) fn repeat_watermarks(&mut self) {
        // Pushed last first, as above.
        for at in (0..self.operators.len()).rev() {
            let watermark = self.operators[at].watermark;
            if watermark > Timestamp::MIN {
                self.leave_with(at, Mark::Watermark(watermark));
            }
        }
    }

    /// The keyed states, with their operator's place.
    pub(crate) fn keyed(&mut self) -> impl Iterator<Item = (usize, &mut KeyedState)> {
        self.operators
            .iter_mut()
            .enumerate()
            .filter_map(|(at, it)| it.operator.keyed().map(|keyed| (at, keyed)))
    }

    fn process(&mut self, at: usize, mut batch: OutBatch, place: &dyn Fn() -> String) -> Result<Step> {
        let operator = &mut self.operators[at];
        let before = batch.records.len();
        let result = guard::catch(|| operator.operator.process(&mut *batch.records));
        let taken = (before - batch.records.len()) as u64;
        operator.records += taken;
        operator.context.metrics.records_in(taken);
        let emitted = result.map_err(|error| {
            let (name, subtask) = (operator.name(), operator.context.subtask);
            error.context(format!(
                "operator {name}, subtask {subtask}, record {}{}",
                operator.records,
                place()
            ))
        })?;
        if !batch.records.is_empty() {
            self.stack.push(Work::Batch(at, batch));
        }
        self.emit(at, emitted, place)?;
        Ok(Step::Again)
    }

    fn pass(&mut self, at: usize, mark: Mark, place: &dyn Fn() -> String) -> Result<Step> {
        let operator = &mut self.operators[at];
        let Mark::Watermark(watermark) = mark else {
            // Who makes the watermarks also says when none are to be expected.
            let is_activity = matches!(mark, Mark::Idle | Mark::Active);
            if !(is_activity && operator.operator.replaces_watermarks()) {
                self.leave_with(at, mark);
            }
            return Ok(Step::Again);
        };
        if watermark <= operator.watermark {
            // After a restore the marks of those further up may begin anew.
            return Ok(Step::Again);
        }
        let result = guard::catch(|| operator.operator.on_watermark(watermark));
        let (emitted, progress) =
            result.map_err(|error| error.context(format!("operator {}, watermark", operator.name())))?;
        // Below what it emitted in the stack.
        if progress == Progress::More {
            self.stack.push(Work::Mark(at, mark));
        }
        let mark = (progress == Progress::Done).then_some(mark);
        self.emit(at, Emitted { mark: mark.or(emitted.mark), ..emitted }, place)?;
        Ok(Step::Again)
    }

    /// A mark leaves an operator: for the next one, and for those that read its side outputs. What comes further down the
    /// chain does not concern them.
    fn leave_with(&mut self, at: usize, mark: Mark) {
        self.operators[at].sends(mark);
        self.send_into(mark, |output| output.position == at);
        self.stack.push(Work::Mark(at + 1, mark));
    }

    fn emit(&mut self, at: usize, emitted: Emitted, place: &dyn Fn() -> String) -> Result<()> {
        for (side, mut batch) in emitted.sides {
            self.operators[at].context.metrics.records_out(batch.records.len() as u64);
            self.spread(at, Port::Side(side), &mut batch, place)?;
        }
        // Below the records in the stack: it comes out behind them.
        if let Some(mark) = emitted.mark {
            self.leave_with(at, mark);
        }
        if let Some(main) = emitted.main {
            self.operators[at].context.metrics.records_out(main.records.len() as u64);
            self.stack.push(Work::Batch(at + 1, main));
        }
        Ok(())
    }

    fn leave(&mut self, mut batch: OutBatch, place: &dyn Fn() -> String) -> Result<Step> {
        if self.sink {
            return Ok(Step::Write(batch.records));
        }
        let last = self.operators.len();
        self.spread(last, Port::Main, &mut batch, place)?;
        Ok(Step::Again)
    }

    /// Gives a batch to every edge of one output; all but the last get clones.
    fn spread(
        &mut self,
        at: usize,
        port: Port,
        batch: &mut OutBatch,
        place: &dyn Fn() -> String,
    ) -> Result<()> {
        let main = self.operators.len();
        let takes = |output: &TaskOutput| {
            output.port == port && (port == Port::Main && at == main || output.position == at)
        };
        let indexes: Vec<_> = self
            .outputs
            .iter()
            .enumerate()
            .filter(|(_, output)| takes(output))
            .map(|(index, _)| index)
            .collect();
        for (count, &index) in indexes.iter().enumerate() {
            let TaskOutput { output, upstream, records, .. } = &mut self.outputs[index];
            let is_last = count + 1 == indexes.len();
            let before = batch.records.len();
            // Key selectors, partitioners and `Clone` are the user's.
            let push = || match is_last {
                true => output.push(&mut *batch.records),
                false => output.push_clone(&mut *batch.records),
            };
            guard::catch(push).map_err(|error| {
                let record = *records + (before - batch.records.len()) as u64;
                error
                    .context(format!("{upstream}, choosing where its output record {record} goes{}", place()))
            })?;
            *records += before as u64;
            self.collect_ready(index);
        }
        Ok(())
    }

    fn collect_ready(&mut self, index: usize) {
        while let Some((target, batch)) = self.outputs[index].output.take_ready() {
            let bytes = batch.bytes + batch.records.shallow_bytes();
            self.outgoing.push_back((index, target, Element::Batch(batch.records, bytes)));
        }
    }
}
