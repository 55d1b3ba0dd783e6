//! One attempt that runs: its coordinator, its tasks, its channels, and every step that they can take.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use env::Monotonic;
use tidegate_checkpoint::{
    barrier::{
        Barrier,
        complete::Capture,
        inject::{InjectStep, Injector},
    },
    coordinator::{Coordinator, Decision, Event, Record as NewRecord, RequestId, Settings, TaskReport},
    history::{
        Record,
        step::{Append, Outcome},
    },
    manifest::{ListPart, Manifest, Redistribution, TaskId, TaskSnapshot},
    storage::paths,
};
use types::{AttemptId, Digest, ErrorKind, SnapshotFile, SubtaskIndex, Timestamp};

use super::{
    Guard, World,
    durable::{Broken, Input, Shared, positions},
    job::{LINEAGE, plan, sink_task, source_task, source_uid},
    process::{Action, append_after},
    sink::{Command, Sink, part},
};

/// A wait that a failure costs; shorter ones come by themselves.
const SHORT: Duration = Duration::from_secs(2);

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
pub(super) enum Fate {
    Lives,
    Dies,
    Fenced,
    Ended,
}

impl Running {
    /// Restores the last completed checkpoint and starts the tasks.
    pub(super) fn restore(newest: Shared<Record>, world: &World) -> Broken<Self> {
        let standing = &newest.standing;
        let (attempt, highest) = (standing.attempt.id, standing.highest_checkpoint);
        let manifest = match standing.restore_point().checkpoint() {
            Some(checkpoint) => Some(&**world.durable.manifest(checkpoint)?),
            None => None,
        };
        let positions = manifest.map_or(vec![0; 2], positions);
        let counts = manifest.map(|manifest| world.durable.counts(manifest)).transpose()?;
        let from = manifest.zip(counts);
        let settings = Settings { max_concurrent: world.max_concurrent, ..Settings::default() };
        let mut coordinator = Coordinator::new(settings, plan(attempt), highest);
        let now = Monotonic::default();
        if !coordinator.step(now, Event::TasksRunning).is_empty() {
            return Err("the coordinator decides before anything has happened".to_owned());
        }
        let source = |position| Source {
            position,
            injector: Injector::new(highest),
            commands: VecDeque::new(),
            channel: VecDeque::new(),
        };
        Ok(Self {
            now,
            coordinator: Shared::of(coordinator),
            manifest: None,
            append: None,
            sources: [source(positions[0]), source(positions[1])],
            sink: Sink::restore(attempt, LINEAGE, highest, world.has(Guard::Alignment), from),
            newest,
        })
    }

    pub(super) fn attempt(&self) -> AttemptId {
        self.newest.standing.attempt.id
    }

    /// Steps that others can see.
    pub(super) fn outer_actions(&self) -> Vec<Action> {
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
    pub(super) fn inner_actions(&self, world: &World, actions: &mut Vec<Action>) {
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
            add(short && world.has(Guard::Retry), Action::Tick);
            add(!short && world.budget.failures > 0, Action::Expire);
        }
        add(self.sink.uploading().is_some() && world.budget.failures > 0, Action::Decline);
        add(world.budget.checkpoints > 0, Action::Trigger);
        add(world.budget.stops > 0, Action::Stop);
    }

    pub(super) fn act(&mut self, action: Action, world: &mut World) -> Broken<Fate> {
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
        let records = world.budget.records[index];
        if source.position < records {
            source.position += 1;
            source.channel.push_back(Item::Record(Input { source: index as u8, place: source.position }));
        }
        if source.position < records {
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
        self.coordinator = Shared::of(coordinator);
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
            Decision::WriteManifest(manifest) => self.manifest = Some(Shared::of(*manifest)),
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
