//! *The* loop of a task. One event at a time, in this order of preference: commands, finished background work, room
//! downstream, the sink, records, a slice of snapshot work, cells that wait since a restore. What is due by the clock comes
//! before records, but timers take turns with them. A command is never kept waiting by records, and records are never kept waiting by snapshot work or
//! processing-time timers longer than one slice.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use checkpoint::{
    barrier::{Barrier, align::Align, inject::InjectStep},
    local_recovery::LocalRecovery,
    manifest::TaskId,
};
use env::{Env, FaultPoint, Limits, Message, Monotonic, Receiver, Sender, Store, channel};
use futures::future;
use types::{AttemptId, Error, JobId, KeyGroupRange, Result, Timestamp, Uid};

use super::{
    aligning::Alignments,
    chain::{Chain, Step},
    guard,
    input::{InputGate, TimeStep},
    load::{Load, Wait, measured},
    message::{TaskCommand, TaskReport},
    restore::{self, OperatorRestore},
    sink::{CommitterEvent, SinkTail},
    snapshot::Snapshots,
    source::SourceHead,
    upload::{UploadEvent, Uploads},
    waiting::WaitingCells,
    working::Working,
};
use crate::{
    api::erased::ReaderEvent,
    operators::cancellation::Cancellation,
    record::{Element, Mark},
};

/// How a task works; the same for all tasks of a job.
#[derive(Clone, Debug)]
pub(crate) struct TaskOptions {
    /// The greatest number of records in a batch.
    pub(crate) batch_records: usize,
    /// How many records each source emits per second, all its subtasks together.
    pub(crate) source_rate: Option<u32>,
    /// How long a partial batch waits for more records.
    pub(crate) flush: Duration,
    /// How often watermarks are made.
    pub(crate) watermark_interval: Duration,
    /// How many cells one slice of snapshot work drains.
    pub(crate) slice_cells: usize,
}

/// Where a task's records come from.
pub(crate) enum Head {
    Source(SourceHead),
    Input(InputGate),
}

/// The vertex of the chain that a cut asks for its list states.
pub(crate) struct DurableVertex {
    /// Its place among the chain's vertices.
    pub(crate) position: usize,
    pub(crate) uid: Uid,
    pub(crate) role: Role,
}

/// What a vertex is within its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    /// The place among the chain's operators.
    Operator(usize),
    Sink,
}

/// Everything a task is made of.
pub(crate) struct Task {
    pub(crate) env: Env,
    pub(crate) id: TaskId,
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptId,
    pub(crate) groups: KeyGroupRange,
    pub(crate) head: Head,
    pub(crate) chain: Chain,
    pub(crate) sink: Option<SinkTail>,
    pub(crate) durable: Vec<DurableVertex>,
    pub(crate) commands: Receiver<Message<TaskCommand>>,
    pub(crate) committer_done: Receiver<Message<CommitterEvent>>,
    pub(crate) reports: Reports,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) uploads: Uploads,
    pub(crate) local: Option<LocalRecovery>,
    pub(crate) working: Option<Arc<Working>>,
    pub(crate) options: TaskOptions,
    pub(crate) cancellation: Cancellation,
    pub(crate) load: Load,
    pub(crate) waiting: WaitingCells,
}

/// Where a task's reports go: tagged with the task and the attempt.
#[derive(Clone)]
pub(crate) struct Reports {
    pub(crate) id: TaskId,
    pub(crate) sender: Sender<Message<(TaskId, TaskReport)>>,
}

impl Reports {
    pub(crate) async fn send(&self, report: TaskReport) -> Result<()> {
        let sent = self.sender.send(Message((self.id, report))).await;
        sent.map_err(|_| gone())
    }
}

/// A cancelled task is aborted: whoever sees this was left behind.
fn gone() -> Error {
    Error::internal("the TaskManager is gone")
}

enum Event {
    Command(TaskCommand),
    Uploaded(UploadEvent),
    Committer(CommitterEvent),
    Sent,
    Written(Result<()>),
    Element(usize, Element),
    Read(Result<ReaderEvent>),
    Slice,
    /// Nothing else is to be done: cells that wait are made.
    Make,
    Due,
    /// Nothing, but it is time to show what the task does.
    Shown,
}

/// A barrier that a source was asked for, on its way into the chain.
struct Asked {
    barrier: Barrier,
    /// What goes ahead of it was pushed.
    announced: bool,
}

pub(super) struct Running {
    pub(super) task: Task,
    pub(super) snapshots: Snapshots,
    pub(super) uploaded: (Sender<Message<UploadEvent>>, Receiver<Message<UploadEvent>>),
    asked: VecDeque<Asked>,
    /// Cells changed before a barrier and not yet drained.
    pub(super) undrained: usize,
    next_marks: Monotonic,
    flush_at: Option<Monotonic>,
    /// Processing-time timers have fired and nothing was taken since: records go first now. Functions may register new
    /// timers that are due at once, for ever.
    timers_fired: bool,
    pub(super) alignments: Alignments,
    /// Turns of the loop since others of this thread could run, and when that was.
    turns: u32,
    turned: Monotonic,
    finishing: bool,
}

/// A task gives way to others after so long, even if it has more to do: a function may be slow, and a batch is never divided.
const TURN: Duration = Duration::from_millis(1);

/// A task gives way after so many turns, however short they were.
const TURNS_AT_ONCE: u32 = 16;

/// Runs a task to its end.
///
/// # Errors
/// Whatever ends the attempt; `Internal` if its TaskManager is gone.
pub(crate) async fn run(mut task: Task, restore: Vec<OperatorRestore>) -> Result<TaskReport> {
    let mut snapshots = Snapshots::new(task.id, task.job, task.attempt, task.uploads.policy.max_runs);
    let restored = restore::open_and_restore(&mut task, restore, &mut snapshots).await?;
    task.reports.send(TaskReport::Running(restored)).await?;
    let now = task.env.now();
    let mut running = Running {
        snapshots,
        uploaded: channel(&task.env, Limits::items(64)),
        asked: VecDeque::new(),
        undrained: 0,
        next_marks: now + task.options.watermark_interval,
        flush_at: None,
        timers_fired: false,
        alignments: Alignments::default(),
        turns: 0,
        turned: now,
        finishing: false,
        task,
    };
    running.count_waiting();
    running.run().await
}

impl Running {
    async fn run(mut self) -> Result<TaskReport> {
        while !self.finishing {
            self.work()?;
            self.report_progress().await?;
            let now = self.give_way().await;
            let event = self.next_event(now).await;
            self.handle(event?).await?;
        }
        self.close()
    }

    /// Lets others run if this task has run for long; the time now. Our channels are not tokio's: nothing else would make
    /// room for the tasks of this thread, those that answer the user among them.
    async fn give_way(&mut self) -> Monotonic {
        let now = self.task.env.now();
        self.turns += 1;
        if self.turns < TURNS_AT_ONCE && now.since(self.turned) < TURN {
            return now;
        }
        self.task.env.yield_now().await;
        self.turns = 0;
        self.turned = self.task.env.now();
        self.turned
    }

    /// Runs the chain until it is idle or waits for somebody.
    fn work(&mut self) -> Result<()> {
        let Task { head, chain, sink, cancellation, .. } = &mut self.task;
        while !sink.as_ref().is_some_and(SinkTail::is_busy) {
            cancellation.check()?;
            match chain.step(&|| place(head))? {
                Step::Again => {}
                Step::Idle => return Ok(()),
                Step::Send => {
                    if !chain.send_ready() {
                        return Ok(());
                    }
                }
                Step::Write(batch) => {
                    if let Some(sink) = sink {
                        sink.write(batch);
                    }
                }
            }
        }
        Ok(())
    }

    /// Cuts that are due now that the chain is idle; acknowledgements; what a source wants.
    async fn report_progress(&mut self) -> Result<()> {
        while !self.is_busy() {
            let Some(asked) = self.asked.front_mut() else { break };
            if std::mem::replace(&mut asked.announced, true) {
                let barrier = asked.barrier;
                self.asked.pop_front();
                self.cut(barrier).await?;
                self.task.reports.send(TaskReport::Injected(barrier.checkpoint)).await?;
            } else {
                self.task.chain.push_mark(Mark::Watermark(Timestamp::MAX));
            }
            self.work()?;
        }
        self.take_sealed();
        while let Some(ready) = self.snapshots.take_ready() {
            let report = TaskReport::Acked {
                checkpoint: ready.checkpoint,
                snapshot: ready.snapshot,
                stats: ready.stats,
            };
            self.task.reports.send(report).await?;
        }
        if let Head::Source(source) = &mut self.task.head
            && let Some(report) = source.wants()?
        {
            if report == TaskReport::SourceEnded {
                self.task.chain.push_mark(Mark::Watermark(Timestamp::MAX));
                self.task.chain.push_mark_last(Mark::EndOfInput);
                self.work()?;
            }
            self.task.reports.send(report).await?;
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.task.chain.is_busy() || self.task.sink.as_ref().is_some_and(SinkTail::is_busy)
    }

    async fn next_event(&mut self, now: Monotonic) -> Result<Event> {
        let due = self.due(now);
        let busy = self.is_busy();
        let overdue = !busy && due.is_some_and(|due| due <= now);
        let Task { env, head, chain, sink, commands, committer_done, options, load, waiting, .. } =
            &mut self.task;
        load.show(now);
        let until_shown = load.until_shown(now);
        let wait = due.filter(|_| !busy).map_or(until_shown, |due| due.since(now).min(until_shown));
        let waits_for = match busy {
            true if chain.is_sending() => Wait::Room,
            true => Wait::Sink,
            false => Wait::Work,
        };
        let writing = sink.as_mut().filter(|sink| sink.is_busy());
        let reading = !busy && self.asked.is_empty();
        let (source, gate) = match head {
            Head::Source(source) if reading && source.reads() => (Some(source), None),
            Head::Input(gate) if reading => (None, Some(gate)),
            _ => (None, None),
        };
        let uploaded = &mut self.uploaded.1;
        let undrained = self.undrained;
        let makes_cells = waiting.are_due();
        let records_first = self.timers_fired;
        let event = async {
            Ok(tokio::select! {
                biased;
                command = commands.recv() => {
                    let Message(command) = command.ok_or_else(gone)?;
                    Event::Command(command)
                }
                Some(Message(event)) = uploaded.recv() => Event::Uploaded(event),
                Some(Message(event)) = committer_done.recv() => Event::Committer(event),
                () = future::ready(()), if overdue && !records_first => Event::Due,
                () = chain.sent() => Event::Sent,
                result = async { match writing { Some(sink) => sink.written().await, None => future::pending().await } } =>
                    Event::Written(result),
                (input, element) = async {
                    match gate { Some(gate) => future::poll_fn(|cx| gate.poll_next(cx)).await, None => future::pending().await }
                } => Event::Element(input, element),
                event = async {
                    match source {
                        Some(source) => guard::caught(source.next(options.batch_records)).await,
                        None => future::pending().await,
                    }
                } => Event::Read(event),
                () = future::ready(()), if undrained > 0 => Event::Slice,
                () = future::ready(()), if overdue => Event::Due,
                () = future::ready(()), if makes_cells => Event::Make,
                () = env.sleep(wait) => if busy { Event::Shown } else { Event::Due },
            })
        };
        let (event, waited) = measured(env, event).await;
        load.waited(waits_for, waited);
        if !waited.is_zero() {
            // Others ran meanwhile.
            (self.turns, self.turned) = (0, now + waited);
        }
        event
    }

    /// When something is to be done without any event.
    fn due(&mut self, now: Monotonic) -> Option<Monotonic> {
        self.flush_at = match (self.task.chain.has_partial(), self.flush_at) {
            (false, _) => None,
            (true, None) => Some(now + self.task.options.flush),
            (true, at) => at,
        };
        let timer = self.task.chain.next_processing_timer().map(|at| {
            let wall = self.task.env.wall();
            now + Duration::from_millis(at.0.saturating_sub(wall.0).try_into().unwrap_or(0))
        });
        [self.flush_at, timer, Some(self.next_marks)].into_iter().flatten().min()
    }

    async fn handle(&mut self, event: Event) -> Result<()> {
        if matches!(event, Event::Element(..) | Event::Read(_) | Event::Slice) {
            self.timers_fired = false;
        }
        if matches!(event, Event::Element(..) | Event::Read(_)) {
            self.task.waiting.begin();
        }
        match event {
            Event::Command(command) => self.on_command(command).await,
            Event::Uploaded(event) => self.on_uploaded(event).await,
            Event::Committer(event) => self.on_committer(event).await,
            Event::Sent | Event::Shown => Ok(()),
            Event::Written(result) => {
                result?;
                self.snapshots.flushed();
                Ok(())
            }
            Event::Element(input, element) => {
                self.task.env.fault(FaultPoint::ReadAfter)?;
                self.on_element(input, element).await
            }
            Event::Read(event) => {
                self.task.env.fault(FaultPoint::ReadAfter)?;
                let event = event.map_err(|error| self.at_source(error))?;
                self.on_read(event)
            }
            Event::Slice => {
                self.task.env.fault(FaultPoint::DrainBefore)?;
                self.slice()
            }
            Event::Make => self.make_waiting(),
            Event::Due => self.on_due(),
        }
    }

    async fn on_command(&mut self, command: TaskCommand) -> Result<()> {
        match command {
            TaskCommand::Inject(barrier) => {
                let Head::Source(source) = &mut self.task.head else {
                    return Err(Error::internal("a task without a source was asked for a barrier"));
                };
                if let InjectStep::Inject { last_watermark } = source.on_inject(barrier)? {
                    self.asked.push_back(Asked { barrier, announced: !last_watermark });
                }
            }
            TaskCommand::CancelCheckpoint(checkpoint) => {
                match &mut self.task.head {
                    Head::Source(source) => source.on_cancel(checkpoint),
                    Head::Input(gate) => gate.aligner.on_cancel(checkpoint),
                }
                self.asked.retain(|asked| asked.barrier.checkpoint != checkpoint);
                self.alignments.give_up(checkpoint);
                self.snapshots.cancel(checkpoint);
            }
            TaskCommand::Assign(splits) => {
                if let Head::Source(source) = &mut self.task.head {
                    source.assign(splits);
                }
            }
            TaskCommand::NoMoreSplits => {
                if let Head::Source(source) = &mut self.task.head {
                    source.no_more_splits();
                }
            }
            TaskCommand::Commit(permitted) => {
                let checkpoint = permitted.checkpoint();
                if let Some(sink) = self.task.sink.as_mut().filter(|sink| sink.has_committer()) {
                    sink.commit(checkpoint).await?;
                }
                self.merge(checkpoint)?;
            }
            TaskCommand::Finish => self.finishing = true,
        }
        Ok(())
    }

    async fn on_uploaded(&mut self, event: UploadEvent) -> Result<()> {
        match event {
            UploadEvent::Durable { operator, checkpoint, run } => {
                self.snapshots.durable(operator, checkpoint, run)
            }
            UploadEvent::Failed { checkpoint, error } => {
                // It fails all that wait for it, and not only the one whose barrier came first.
                for checkpoint in self.snapshots.under_way_from(checkpoint) {
                    let reason = error.to_string();
                    self.task.reports.send(TaskReport::Declined { checkpoint, reason }).await?;
                }
            }
            UploadEvent::Broken { error } => return Err(error),
            UploadEvent::Merged { operator, replaced, run } => {
                self.snapshots.merged(operator, &replaced, run)
            }
            UploadEvent::MergeFailed { operator, error } => {
                self.task
                    .env
                    .warn(&format!("{}: merging runs failed and is tried later: {error}", self.task.id));
                self.snapshots.merge_failed(operator);
            }
        }
        Ok(())
    }

    async fn on_committer(&mut self, event: CommitterEvent) -> Result<()> {
        match event {
            CommitterEvent::Prepared(transaction) => self.snapshots.prepared(transaction),
            CommitterEvent::Committed(checkpoint) => {
                self.snapshots.committed(checkpoint);
                self.task.reports.send(TaskReport::Committed(checkpoint)).await?;
            }
            CommitterEvent::Failed(error) => return Err(error),
        }
        Ok(())
    }

    async fn on_element(&mut self, input: usize, element: Element) -> Result<()> {
        let Head::Input(gate) = &mut self.task.head else { return Ok(()) };
        let chain = &mut self.task.chain;
        let step = match element {
            Element::Batch(records, bytes) => {
                chain.push_batch(crate::operators::operator::OutBatch { records, bytes });
                return self.slice();
            }
            Element::Mark(Mark::Watermark(watermark)) => gate.on_watermark(input, watermark),
            Element::Mark(Mark::Idle) => gate.on_idle(input),
            Element::Mark(Mark::Active) => gate.on_active(input),
            Element::Mark(Mark::EndOfInput) => {
                if gate.aligner.on_end(input)? {
                    chain.push_mark(Mark::EndOfInput);
                }
                TimeStep::None
            }
            Element::Mark(Mark::Barrier(barrier)) => return self.on_barrier(input, barrier).await,
        };
        match step {
            TimeStep::None => {}
            TimeStep::Watermark(watermark) => chain.push_mark(Mark::Watermark(watermark)),
            TimeStep::Idle => chain.push_mark(Mark::Idle),
            TimeStep::Active => chain.push_mark(Mark::Active),
        }
        Ok(())
    }

    async fn on_barrier(&mut self, input: usize, barrier: Barrier) -> Result<()> {
        let Head::Input(gate) = &mut self.task.head else { return Ok(()) };
        let step = gate.aligner.on_barrier(input, barrier.checkpoint)?;
        for checkpoint in step.aborted {
            self.alignments.give_up(checkpoint);
            let reason = format!("checkpoint {} overtook it", barrier.checkpoint);
            self.task.reports.send(TaskReport::Declined { checkpoint, reason }).await?;
        }
        match step.then {
            Align::Ignore => Ok(()),
            Align::Wait => {
                self.alignments.wait(barrier.checkpoint, self.task.env.now());
                Ok(())
            }
            Align::Cut => self.cut(barrier).await,
        }
    }

    /// Says which source an error comes from, and where it stands.
    fn at_source(&self, error: Error) -> Error {
        let source = self.task.durable.iter().find(|vertex| vertex.role == Role::Source);
        let uid = source.map_or("", |vertex| vertex.uid.as_str());
        error.context(format!("source {uid}, subtask {}{}", self.task.id.subtask, place(&self.task.head)))
    }

    fn on_read(&mut self, event: ReaderEvent) -> Result<()> {
        let Head::Source(source) = &mut self.task.head else { return Ok(()) };
        if let ReaderEvent::Batch(batch) = event {
            source.emitted(batch.records.len() as u64);
            self.task.chain.push_batch(batch);
            self.slice()?;
        }
        Ok(())
    }

    fn on_due(&mut self) -> Result<()> {
        let now = self.task.env.now();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            self.task.chain.flush();
            return Ok(());
        }
        if self.next_marks <= now {
            self.next_marks = now + self.task.options.watermark_interval;
            self.task.waiting.count_interval();
            let emits = match &self.task.head {
                Head::Source(source) => source.may_emit(),
                Head::Input(_) => true,
            };
            if emits {
                self.task.chain.make_marks(now, false);
            }
            return Ok(());
        }
        let wall = self.task.env.wall();
        self.timers_fired = self.task.chain.on_processing_time(wall)?;
        Ok(())
    }

    fn close(mut self) -> Result<TaskReport> {
        let mut closed = Ok(());
        for operator in &mut self.task.chain.operators {
            let name = operator.context.operator.clone();
            let one = guard::catch(|| operator.operator.close())
                .map_err(|error| error.context(format!("operator {name}, close")));
            // Each is closed, whatever another one's function says.
            closed = closed.and(one);
        }
        closed.map(|()| TaskReport::Finished)
    }
}

fn place(head: &Head) -> String {
    match head {
        Head::Source(source) => {
            source.reader.place().map_or_else(String::new, |place| format!(" (source at {place})"))
        }
        Head::Input(_) => String::new(),
    }
}
