//! One process of the job: how it starts, takes the job over, recovers, runs and dies.

use std::{collections::VecDeque, sync::Arc};

use tidegate_checkpoint::history::{
    Kind, Record,
    step::{Append, Outcome, Starting},
};
use types::{AttemptId, CheckpointId};

use super::{
    Guard, World,
    durable::{Broken, Durable},
    log::milestones,
    running::{Fate, Running},
    sink::to_commit,
};
use crate::mixer::Shared;

/// A step that a process can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A rival process appears.
    Appear,
    /// Begins to start: makes the first call that finds the newest record.
    Start,
    /// Makes the next call of a start, or of an append: a confirmation at recovery, or what the coordinator wants.
    Call,
    /// Deletes a record that a milestone has made superfluous.
    Delete,
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
    Starting(Box<Starting>),
    Recovering(Box<Recovery>),
    Running(Box<Running>),
}

#[derive(Clone, Hash)]
pub(super) struct Recovery {
    start: Shared<Record>,
    commits: VecDeque<(AttemptId, CheckpointId)>,
    pub(super) confirm: Option<Append>,
}

impl World {
    pub(super) fn act(&mut self, index: usize, action: Action) -> Broken {
        let process = Process::clone(&self.processes[index]);
        let process = match (process, action) {
            (_, Action::Appear) => {
                self.budget.rivals -= 1;
                self.start(index, Starting::new(milestones(), None))?
            }
            (process, Action::Delete) => {
                let old = self.old_in_flight(index).ok_or("nothing to delete")?;
                self.budget.deletions -= 1;
                self.durable.change(|durable| durable.log.delete(old));
                process
            }
            (_, Action::Crash) => {
                self.budget.crashes -= 1;
                Process::Dead
            }
            (Process::Dead, Action::Start) => self.start(index, Starting::new(milestones(), None))?,
            (Process::Starting(starting), Action::Call) => self.start(index, *starting)?,
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
        if self.at_once {
            self.durable.change(Durable::forget_orphans);
        }
        Ok(())
    }

    /// What an attempt whose start record is in the history has to do first.
    pub(super) fn started(&self, record: Arc<Record>) -> Broken<Process> {
        self.won(&record)?;
        let commits = to_commit(&self.durable, &record.standing.unconfirmed)?;
        let commits = if self.has(Guard::CommitAtRecovery) { commits.into() } else { VecDeque::new() };
        Ok(Process::Recovering(Box::new(Recovery { start: Shared::new(record), commits, confirm: None })))
    }

    fn recover(&mut self, mut recovery: Recovery) -> Broken<Process> {
        if let Some(confirm) = recovery.confirm.take() {
            let record = Arc::clone(confirm.record());
            return match self.append(confirm)? {
                Ok(Outcome::Won) => self.run(Shared::new(record)),
                Ok(_) => Ok(Process::Fenced),
                Err(confirm) => {
                    recovery.confirm = Some(confirm);
                    Ok(Process::Recovering(Box::new(recovery)))
                }
            };
        }
        if let Some(next) = recovery.commits.pop_front() {
            self.durable.change(|durable| durable.commit(next))?;
        }
        if recovery.commits.is_empty() {
            let unconfirmed = &recovery.start.standing.unconfirmed;
            let keep = to_commit(&self.durable, unconfirmed)?.into_iter().collect();
            let own = recovery.start.standing.attempt.id;
            let before = if self.has(Guard::SweepOlder) { own } else { AttemptId(u64::MAX) };
            self.durable.change(|durable| durable.sweep(before, &keep));
            let Some(newest) = unconfirmed.last() else { return self.run(recovery.start) };
            recovery.confirm = Some(self.append_after(&recovery.start, Kind::SinksConfirmed(*newest))?);
        }
        Ok(Process::Recovering(Box::new(recovery)))
    }

    fn run(&self, newest: Shared<Record>) -> Broken<Process> {
        Ok(Process::Running(Box::new(Running::restore(newest, self)?)))
    }
}
