//! One process of the job: how it starts, takes the job over, recovers, runs and dies.

use std::{collections::VecDeque, sync::Arc};

use tidegate_checkpoint::history::{
    AttemptStart, Instance, Kind, Milestones, Record, StartRequest,
    start::{self, Candidate},
    step::{Answer, Append, Call, Outcome},
};
use types::{AttemptId, CheckpointId, MaxParallelism, Timestamp};

use super::{
    Guard, World,
    durable::{Broken, Durable, Shared},
    job::{JOB, LINEAGE},
    running::{Fate, Running},
    sink::to_commit,
};

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
    /// A source sends its next record; after the last one its end.
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

impl World {
    /// The steps that a process can take now.
    pub(super) fn actions(&self, index: usize) -> Vec<Action> {
        match &*self.processes[index] {
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
        let process = Process::clone(&self.processes[index]);
        let process = match (process, action) {
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
        self.processes[index] = Shared::of(process);
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
                let kind = Kind::AttemptStarted(AttemptStart::clone(&start));
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
            let own = recovery.start.standing.attempt.id;
            let before = if self.has(Guard::SweepOlder) { own } else { AttemptId(u64::MAX) };
            self.durable.sweep(before, &keep);
            let Some(newest) = unconfirmed.last() else { return self.run(recovery.start) };
            recovery.confirm = Some(append_after(&recovery.start, Kind::SinksConfirmed(*newest))?);
        }
        Ok(Process::Recovering(Box::new(recovery)))
    }

    fn run(&self, newest: Shared<Record>) -> Broken<Process> {
        Ok(Process::Running(Box::new(Running::restore(newest, self)?)))
    }
}

impl Durable {
    /// All calls of one append; how it went.
    pub(super) fn append(&mut self, mut append: Append) -> Broken<(Arc<Record>, Outcome)> {
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

pub(super) fn append_after(newest: &Record, kind: Kind) -> Broken<Append> {
    let record = Record::after(Some(newest), Timestamp(0), kind).map_err(|error| error.to_string())?;
    Ok(Append::new(Arc::new(record), Milestones::default()))
}
