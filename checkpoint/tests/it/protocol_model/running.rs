//! One attempt that runs: its coordinator, its tasks, its channels, and every step that they can take.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
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
    durable::{Broken, Input, positions},
    job::{LINEAGE, plan, sink_task, source_task, source_uid},
    process::Action,
    sink::{Command, Sink, part},
};
use crate::mixer::Shared;

/// What a channel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Record(Input),
    Barrier(Barrier),
    End,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Source {
    position: u8,
    pub(super) injector: Injector,
    pub(super) commands: VecDeque<Command>,
    pub(super) channel: VecDeque<Item>,
}

#[derive(Clone, Hash)]
pub(super) struct Running {
    newest: Shared<Record>,
    pub(super) now: Monotonic,
    pub(super) coordinator: Shared<Coordinator>,
    pub(super) manifest: Option<Shared<Manifest>>,
    pub(super) append: Option<Append>,
    pub(super) sources: [Source; 2],
    pub(super) sink: Sink,
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

    pub(super) fn act(&mut self, action: Action, world: &mut World) -> Broken<Fate> {
        match action {
            Action::Call => self.append(world),
            Action::WriteManifest => self.write_manifest(world),
            Action::Upload => {
                let durable_first = world.has(Guard::DurableBeforeAck);
                let report = match durable_first {
                    true => world.durable.change(|durable| self.sink.upload(durable)),
                    false => self.sink.acknowledge_early(),
                };
                self.report(sink_task(), report, world)
            }
            Action::SinkCommand => {
                let command = self.sink.commands.pop_front().ok_or("no command")?;
                let without = world.without;
                let report = world.durable.change(|durable| self.sink.command(command, durable, without))?;
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
            Action::Appear | Action::Start | Action::Recover | Action::Delete | Action::Crash => {
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
        let id = (manifest.attempt, checkpoint);
        world.durable.change(|durable| durable.manifests.insert(id, manifest));
        let path = paths::manifest(self.attempt(), checkpoint);
        let file = SnapshotFile { path, len: 1, digest: Digest(0) };
        self.step(Event::ManifestWritten { checkpoint, file }, world)
    }

    fn append(&mut self, world: &mut World) -> Broken<Fate> {
        let append = self.append.take().ok_or("no record")?;
        let record = Arc::clone(append.record());
        match world.append(append)? {
            Err(append) => {
                self.append = Some(append);
                Ok(Fate::Lives)
            }
            Ok(Outcome::Won) => {
                self.newest = Shared::new(record);
                self.step(Event::Recorded, world)
            }
            Ok(Outcome::Lost(newer)) if !world.has(Guard::Fencing) => {
                // On top of what the other wrote, as if the job were still ours.
                let Ok(append) = world.append_after(&newer, record.kind.clone()) else {
                    return Ok(Fate::Fenced);
                };
                self.append = Some(append);
                Ok(Fate::Lives)
            }
            Ok(Outcome::Lost(_) | Outcome::Past) => {
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
                    world.durable.change(|durable| self.sink.commit(*checkpoint, durable))?;
                }
                self.append = Some(world.append_after(&self.newest, record.into())?);
            }
            Decision::Commit { checkpoint } => {
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
            Decision::CopySavepoint { .. }
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
        elements: [[position]].into_iter().collect(),
    });
    TaskSnapshot { task: source_task(index), operators: vec![(source_uid(), part)] }
}
