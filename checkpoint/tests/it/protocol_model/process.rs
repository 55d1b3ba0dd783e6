//! One process of the job: its start, its recovery, its JobManager and its tasks, and every step that they can take.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use env::Monotonic;
use tidegate_checkpoint::{
    barrier::{
        Barrier,
        complete::{AttemptPlan, Capture, OperatorPlan},
        inject::{InjectStep, Injector},
    },
    coordinator::{Coordinator, Decision, Event, Record as NewRecord, RequestId, Settings, TaskReport},
    history::{
        Instance, Kind, Milestones, Record, StartRequest,
        start::{self, Candidate},
        step::{Answer, Append, Call, Outcome},
    },
    manifest::{ListPart, Manifest, Redistribution, TaskId, TaskSnapshot},
    storage::paths,
};
use types::{
    AttemptId, CheckpointId, Digest, ErrorKind, JobId, Lineage, MaxParallelism, SnapshotFile, SubtaskIndex,
    Timestamp, Uid,
};

use super::{
    Guard, INPUT, World,
    durable::{Broken, Durable, Input, Shared, positions},
    sink::{Command, Sink, part, to_commit},
};

pub(super) const JOB: JobId = JobId(1);
const LINEAGE: Lineage = Lineage(1);
/// A wait that a failure costs; shorter ones come by themselves.
const SHORT: Duration = Duration::from_secs(2);

pub(super) fn sink_task() -> TaskId {
    TaskId { chain: 1, subtask: SubtaskIndex(0) }
}

fn source_task(source: usize) -> TaskId {
    TaskId { chain: 0, subtask: SubtaskIndex(source as u32) }
}

pub(super) fn sink_uid() -> Uid {
    Uid::new("counts").unwrap()
}

fn source_uid() -> Uid {
    Uid::new("lines").unwrap()
}

fn operator(uid: Uid, kind: &str, parallelism: u32) -> OperatorPlan {
    OperatorPlan {
        uid,
        kind: kind.into(),
        parallelism,
        key_shape: Vec::new(),
        states: Vec::new(),
        enumerator: false,
    }
}

fn plan(attempt: AttemptId) -> Arc<AttemptPlan> {
    let sources: BTreeSet<_> = (0..INPUT.len()).map(source_task).collect();
    Arc::new(AttemptPlan {
        job_name: "model".into(),
        job: JOB,
        lineage: LINEAGE,
        attempt,
        max_parallelism: MaxParallelism(1),
        tasks: sources.iter().copied().chain([sink_task()]).collect(),
        sources,
        operators: vec![operator(source_uid(), "source", 2), operator(sink_uid(), "sink", 1)],
    })
}

/// What a channel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Record(Input),
    Barrier(Barrier),
    End,
}

#[derive(Clone, Debug, Hash)]
struct Source {
    position: u8,
    injector: Injector,
    commands: VecDeque<Command>,
    channel: VecDeque<Item>,
}

/// A step that a process can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A rival process appears.
    Appear,
    /// Reads the newest record and decides how to start on top of it.
    Decide,
    /// Makes the next call of an append: a start, a confirmation at recovery, or what the coordinator wants.
    Append,
    /// Commits the next pending transaction at recovery; after the last one sweeps.
    Recover,
    /// A source sends its next record, or its end.
    Emit(usize),
    /// A source takes in a command.
    Command(usize),
    /// The sink task takes in an item of a channel.
    Read(usize),
    /// The sink task takes in a command.
    SinkCommand,
    /// The sink task's oldest cut becomes durable and is acknowledged.
    Upload,
    WriteManifest,
    /// A short wait is over.
    Tick,
    /// A long wait is over: checkpoints time out.
    Expire,
    /// The sink task declines the checkpoint it is uploading.
    Decline,
    /// A user asks for a checkpoint.
    Trigger,
    /// A user asks for a stop.
    Stop,
    Crash,
}

#[derive(Clone, Hash)]
pub(super) enum Process {
    /// Never started, and need not be.
    Absent,
    /// To be started by its supervisor.
    Dead,
    /// Another attempt owns the job: never started again.
    Fenced,
    /// The job has ended.
    Ended,
    Starting(Append),
    Recovering(Box<Recovery>),
    Running(Box<Running>),
}

#[derive(Clone, Hash)]
pub(super) struct Recovery {
    start: Shared<Record>,
    commits: VecDeque<(AttemptId, CheckpointId)>,
    confirm: Option<Append>,
}

#[derive(Clone, Hash)]
pub(super) struct Running {
    newest: Shared<Record>,
    now: Monotonic,
    coordinator: Shared<Coordinator>,
    manifest: Option<Shared<Manifest>>,
    append: Option<Append>,
    sources: [Source; 2],
    sink: Sink,
}

/// What the last step of the coordinator makes of its process.
enum Fate {
    Lives,
    Dies,
    Fenced,
    Ended,
}

impl World {
    /// The steps that a process can take now.
    pub(super) fn actions(&self, index: usize) -> Vec<Action> {
        match &self.processes[index] {
            Process::Absent if self.budget.rivals > 0 && !self.durable.history.is_empty() => {
                vec![Action::Appear]
            }
            Process::Dead => vec![Action::Decide],
            Process::Absent | Process::Fenced | Process::Ended => Vec::new(),
            Process::Starting(_) => self.and_crash(vec![Action::Append]),
            Process::Recovering(recovery) => {
                let next = if recovery.confirm.is_some() { Action::Append } else { Action::Recover };
                self.and_crash(vec![next])
            }
            Process::Running(running) => {
                let mut actions = running.outer_actions();
                // Whatever else a fenced process does it could have done before it was fenced.
                if !self.is_fenced(index) {
                    running.inner_actions(self, &mut actions);
                    return self.and_crash(actions);
                }
                actions
            }
        }
    }

    fn and_crash(&self, mut actions: Vec<Action>) -> Vec<Action> {
        if self.budget.crashes > 0 {
            actions.push(Action::Crash);
        }
        actions
    }

    pub(super) fn act(&mut self, index: usize, action: Action) -> Broken {
        let process = std::mem::replace(&mut self.processes[index], Process::Dead);
        self.processes[index] = match (process, action) {
            (_, Action::Appear) => {
                self.budget.rivals -= 1;
                self.decide(index)?
            }
            (_, Action::Crash) => {
                self.budget.crashes -= 1;
                Process::Dead
            }
            (Process::Dead, Action::Decide) => self.decide(index)?,
            (Process::Starting(append), Action::Append) => self.start(index, append)?,
            (Process::Recovering(recovery), _) => self.recover(*recovery)?,
            (Process::Running(mut running), action) => {
                let fate = running.act(action, self)?;
                match fate {
                    Fate::Lives => Process::Running(running),
                    Fate::Dies => Process::Dead,
                    Fate::Fenced => Process::Fenced,
                    Fate::Ended => Process::Ended,
                }
            }
            (process, _) => process,
        };
        Ok(())
    }

    fn decide(&self, index: usize) -> Broken<Process> {
        let newest = self.durable.history.last();
        let request = StartRequest::new("model", MaxParallelism(1), 2);
        let candidate = Candidate {
            request: &request,
            instance: Instance(index as u128),
            process: "model",
            directory: "model",
            new_job: JOB,
            new_lineage: LINEAGE,
        };
        let decision = start::decide(newest.map(|newest| &newest.standing), &candidate);
        match decision.map_err(|error| error.to_string())? {
            start::Decision::Finished(_) => Ok(Process::Ended),
            start::Decision::Start(_) if self.durable.is_over() => Ok(Process::Ended),
            start::Decision::Start(start) => {
                let kind = Kind::AttemptStarted(start);
                let record = Record::after(newest.map(|newest| &**newest), Timestamp(0), kind);
                let record = record.map_err(|error| error.to_string())?;
                Ok(Process::Starting(Append::new(Arc::new(record), Milestones::default())))
            }
        }
    }

    fn start(&mut self, index: usize, append: Append) -> Broken<Process> {
        match self.durable.append(append)? {
            (record, Outcome::Won) => {
                let commits = to_commit(&self.durable, &record.standing.unconfirmed)?;
                let commits =
                    if self.has(Guard::CommitAtRecovery) { commits.into() } else { VecDeque::new() };
                Ok(Process::Recovering(Box::new(Recovery {
                    start: Shared::new(record),
                    commits,
                    confirm: None,
                })))
            }
            (_, Outcome::Lost(_)) => self.decide(index),
            (_, Outcome::Past) => Err("a record lies in the deleted past".to_owned()),
        }
    }

    fn recover(&mut self, mut recovery: Recovery) -> Broken<Process> {
        if let Some(confirm) = recovery.confirm.take() {
            return match self.durable.append(confirm)? {
                (record, Outcome::Won) => self.run(Shared::new(record)),
                _ => Ok(Process::Fenced),
            };
        }
        if let Some(next) = recovery.commits.pop_front() {
            self.durable.commit(next)?;
        }
        if recovery.commits.is_empty() {
            let unconfirmed = &recovery.start.standing.unconfirmed;
            let keep = to_commit(&self.durable, unconfirmed)?.into_iter().collect();
            self.durable.sweep(&keep);
            let Some(newest) = unconfirmed.last() else { return self.run(recovery.start) };
            recovery.confirm = Some(append_after(&recovery.start, Kind::SinksConfirmed(*newest))?);
        }
        Ok(Process::Recovering(Box::new(recovery)))
    }

    /// Restores the last completed checkpoint and starts the tasks.
    fn run(&self, newest: Shared<Record>) -> Broken<Process> {
        let standing = &newest.standing;
        let (attempt, highest) = (standing.attempt.id, standing.highest_checkpoint);
        let manifest = match standing.restore_point().checkpoint() {
            Some(checkpoint) => Some(self.durable.manifest(checkpoint)?),
            None => None,
        };
        let positions = manifest.map_or(vec![0; INPUT.len()], |manifest| positions(manifest));
        let counts = manifest.map(|manifest| self.durable.counts(manifest)).transpose()?;
        let from = manifest.map(|manifest| &**manifest).zip(counts);
        let aligned = self.has(Guard::Alignment);
        let settings = Settings { max_concurrent: self.max_concurrent, ..Settings::default() };
        let coordinator = Coordinator::new(settings, plan(attempt), highest);
        let source = |position| Source {
            position,
            injector: Injector::new(highest),
            commands: VecDeque::new(),
            channel: VecDeque::new(),
        };
        let mut running = Box::new(Running {
            newest: newest.clone(),
            now: Monotonic::default(),
            coordinator: Shared::new(Arc::new(coordinator)),
            manifest: None,
            append: None,
            sources: [source(positions[0]), source(positions[1])],
            sink: Sink::restore(attempt, LINEAGE, highest, aligned, from),
        });
        let mut world = self.clone();
        running.step(Event::TasksRunning, &mut world)?;
        Ok(Process::Running(running))
    }
}

impl Durable {
    /// All calls of one append; how it went.
    fn append(&mut self, mut append: Append) -> Broken<(Arc<Record>, Outcome)> {
        loop {
            let answer = match append.call() {
                Call::Create(record) => match self.create(&record) {
                    Ok(()) => Answer::Created,
                    Err(_) => Answer::Taken,
                },
                Call::Read(number) => {
                    Answer::Record(self.history.get(number.0 as usize).map(|record| Arc::clone(record.arc())))
                }
                Call::Exists(number) => Answer::Exists((number.0 as usize) < self.history.len()),
            };
            if let Some(outcome) = append.answer(answer) {
                return Ok((Arc::clone(append.record()), outcome));
            }
        }
    }
}

fn append_after(newest: &Record, kind: Kind) -> Broken<Append> {
    let record = Record::after(Some(newest), Timestamp(0), kind).map_err(|error| error.to_string())?;
    Ok(Append::new(Arc::new(record), Milestones::default()))
}

impl Running {
    pub(super) fn attempt(&self) -> AttemptId {
        self.newest.standing.attempt.id
    }

    /// Steps that others can see.
    fn outer_actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut add = |can: bool, action| {
            if can {
                actions.push(action);
            }
        };
        add(self.append.is_some(), Action::Append);
        add(self.manifest.is_some(), Action::WriteManifest);
        add(self.sink.uploading().is_some(), Action::Upload);
        add(!self.sink.commands.is_empty(), Action::SinkCommand);
        actions
    }

    /// Steps inside the process.
    fn inner_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let mut add = |can: bool, action| {
            if can {
                actions.push(action);
            }
        };
        for (index, source) in self.sources.iter().enumerate() {
            add(source.injector.may_emit(), Action::Emit(index));
            add(!source.commands.is_empty(), Action::Command(index));
            add(!source.channel.is_empty() && self.sink.can_read(index), Action::Read(index));
        }
        if let Some(wakeup) = self.coordinator.next_wakeup() {
            let short = wakeup.since(self.now) <= SHORT;
            add(short, Action::Tick);
            add(!short && world.budget.failures > 0, Action::Expire);
        }
        add(self.sink.uploading().is_some() && world.budget.failures > 0, Action::Decline);
        add(world.budget.checkpoints > 0, Action::Trigger);
        add(world.budget.stops > 0, Action::Stop);
    }

    fn act(&mut self, action: Action, world: &mut World) -> Broken<Fate> {
        match action {
            Action::Append => self.append(world),
            Action::WriteManifest => self.write_manifest(world),
            Action::Upload => {
                let durable_first = world.has(Guard::DurableBeforeAck);
                let report = match durable_first {
                    true => self.sink.upload(&mut world.durable),
                    false => self.sink.acknowledge_early(),
                };
                self.report(sink_task(), report, world)
            }
            Action::SinkCommand => {
                let command = self.sink.commands.pop_front().ok_or("no command")?;
                let report = self.sink.command(command, &mut world.durable, world.without)?;
                self.report(sink_task(), report, world)
            }
            Action::Emit(source) => self.emit(source, world),
            Action::Command(source) => self.command(source, world),
            Action::Read(input) => {
                let item = self.sources[input].channel.pop_front().ok_or("no item")?;
                let reports = self.sink.read(input, item)?;
                self.report(sink_task(), reports, world)
            }
            Action::Tick => self.wake(world),
            Action::Expire => {
                world.budget.failures -= 1;
                self.wake(world)
            }
            Action::Decline => {
                world.budget.failures -= 1;
                let checkpoint = self.sink.uploading().ok_or("nothing to decline")?;
                let report = TaskReport::Declined { checkpoint, reason: "disk full".into() };
                self.report(sink_task(), Some(report), world)
            }
            Action::Trigger => {
                world.budget.checkpoints -= 1;
                self.step(Event::TriggerCheckpoint { request: RequestId(0) }, world)
            }
            Action::Stop => {
                world.budget.stops -= 1;
                self.step(Event::Stop { request: RequestId(1), drain: false, savepoint: None }, world)
            }
            Action::Appear | Action::Decide | Action::Recover | Action::Crash => {
                Err(format!("{action:?} while running"))
            }
        }
    }

    fn emit(&mut self, index: usize, world: &mut World) -> Broken<Fate> {
        let source = &mut self.sources[index];
        if source.position < INPUT[index] {
            source.position += 1;
            source.channel.push_back(Item::Record(Input { source: index as u8, place: source.position }));
            return Ok(Fate::Lives);
        }
        source.injector.on_end().map_err(|error| error.to_string())?;
        source.channel.push_back(Item::End);
        self.report(source_task(index), Some(TaskReport::SourceFinished), world)
    }

    fn command(&mut self, index: usize, world: &mut World) -> Broken<Fate> {
        let source = &mut self.sources[index];
        match source.commands.pop_front().ok_or("no command")? {
            Command::Cancel(checkpoint) => source.injector.on_cancel(checkpoint),
            Command::Commit(_) => return Err("a source was asked to commit".to_owned()),
            Command::Inject(barrier) => {
                let step = source.injector.on_request(barrier).map_err(|error| error.to_string())?;
                if step != InjectStep::Ignore {
                    source.channel.push_back(Item::Barrier(barrier));
                    let checkpoint = barrier.checkpoint;
                    let snapshot = source_snapshot(index, source.position);
                    return self.report(
                        source_task(index),
                        [TaskReport::Injected { checkpoint }, TaskReport::Acked { checkpoint, snapshot }],
                        world,
                    );
                }
            }
        }
        Ok(Fate::Lives)
    }

    fn wake(&mut self, world: &mut World) -> Broken<Fate> {
        self.now = self.coordinator.next_wakeup().unwrap_or(self.now);
        self.step(Event::TimePassed, world)
    }

    fn write_manifest(&mut self, world: &mut World) -> Broken<Fate> {
        let manifest = self.manifest.take().ok_or("no manifest")?;
        let checkpoint = manifest.checkpoint;
        world.durable.manifests.insert((manifest.attempt, checkpoint), manifest);
        let path = paths::manifest(self.attempt(), checkpoint);
        let file = SnapshotFile { path, len: 1, digest: Digest(0) };
        self.step(Event::ManifestWritten { checkpoint, file }, world)
    }

    fn append(&mut self, world: &mut World) -> Broken<Fate> {
        let append = self.append.take().ok_or("no record")?;
        let kind = append.record().kind.clone();
        match world.durable.append(append)? {
            (record, Outcome::Won) => {
                self.newest = Shared::new(record);
                self.step(Event::Recorded, world)
            }
            (_, Outcome::Lost(newer)) if !world.has(Guard::Fencing) => {
                // On top of what the other wrote, as if the job were still ours.
                let Ok(append) = append_after(&newer, kind) else { return Ok(Fate::Fenced) };
                self.append = Some(append);
                Ok(Fate::Lives)
            }
            _ => {
                let error = types::Error::fenced("another attempt owns the job");
                self.step(Event::RecordFailed { error }, world)
            }
        }
    }

    fn report(
        &mut self,
        task: TaskId,
        reports: impl IntoIterator<Item = TaskReport>,
        world: &mut World,
    ) -> Broken<Fate> {
        let mut fate = Fate::Lives;
        for report in reports {
            fate = self.step(Event::Task { attempt: self.attempt(), task, report }, world)?;
        }
        Ok(fate)
    }

    fn step(&mut self, event: Event, world: &mut World) -> Broken<Fate> {
        let mut coordinator = Coordinator::clone(&self.coordinator);
        let mut events = VecDeque::from([event]);
        let mut fate = Fate::Lives;
        while let Some(event) = events.pop_front() {
            for decision in coordinator.step(self.now, event) {
                self.carry_out(decision, &mut events, &mut fate, world)?;
            }
        }
        self.coordinator = Shared::new(Arc::new(coordinator));
        Ok(fate)
    }

    fn carry_out(
        &mut self,
        decision: Decision,
        events: &mut VecDeque<Event>,
        fate: &mut Fate,
        world: &mut World,
    ) -> Broken {
        match decision {
            Decision::Inject(barrier) => {
                let capture = Capture { triggered_at: Timestamp(0), enumerators: BTreeMap::new() };
                events.push_back(Event::Captured { checkpoint: barrier.checkpoint, capture });
                self.sources
                    .iter_mut()
                    .for_each(|source| source.commands.push_back(Command::Inject(barrier)));
            }
            Decision::CancelCheckpoint { checkpoint } => {
                let cancel = Command::Cancel(checkpoint);
                self.sources.iter_mut().for_each(|source| source.commands.push_back(cancel));
                self.sink.commands.push_back(cancel);
            }
            Decision::WriteManifest(manifest) => self.manifest = Some(Shared::new(Arc::new(*manifest))),
            Decision::Record(record) => {
                if let (NewRecord::Completed { checkpoint, .. }, false) =
                    (&record, world.has(Guard::RecordBeforeCommit))
                {
                    self.sink.commit(*checkpoint, &mut world.durable)?;
                }
                self.append = Some(append_after(&self.newest, record.into())?);
            }
            Decision::Commit { checkpoint, tasks } if !tasks.is_empty() => {
                self.sink.commands.push_back(Command::Commit(checkpoint));
            }
            Decision::Finish(_) => *fate = Fate::Ended,
            Decision::Restart { .. } => *fate = Fate::Dies,
            Decision::FailJob { error } => match error.kind() {
                ErrorKind::Fenced => *fate = Fate::Fenced,
                ErrorKind::Retryable => *fate = Fate::Dies,
                _ => return Err(format!("the job failed: {error}")),
            },
            Decision::Alert { error } => return Err(format!("the coordinator alerts: {error}")),
            Decision::Commit { .. }
            | Decision::CopySavepoint { .. }
            | Decision::ReleaseAssignments { .. }
            | Decision::Collect { .. }
            | Decision::Answer { .. } => {}
        }
        Ok(())
    }
}

fn source_snapshot(index: usize, position: u8) -> TaskSnapshot {
    let mut part = part(SubtaskIndex(index as u32));
    part.lists.push(ListPart {
        name: "position".into(),
        redistribution: Redistribution::Split,
        codec: String::new(),
        shape: Vec::new(),
        elements: vec![vec![position]],
    });
    TaskSnapshot { task: source_task(index), operators: vec![(source_uid(), part)] }
}
