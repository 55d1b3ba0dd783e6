//! What a process can do in a state, and what of it is done at once.

use std::time::Duration;

use tidegate_checkpoint::history::step::{Call, StartStep};
use types::RecordNumber;

use super::{
    Guard, World,
    process::{Action, Process},
    running::Running,
    sink::Command,
};

/// A wait that a failure costs; shorter ones come by themselves.
const SHORT: Duration = Duration::from_secs(2);

impl World {
    /// The steps that a process can take now.
    pub(super) fn actions(&self, index: usize) -> Vec<Action> {
        let mut actions = self.own_actions(index);
        if self.budget.deletions > 0 && self.old_in_flight(index).is_some() {
            actions.push(Action::Delete);
        }
        actions
    }

    /// The record that a process is about to create, or to read after losing it, once it is superfluous. Only its deletion is
    /// a step: nobody ever looks at any other superfluous record again, since a search ends at the last milestone or above and
    /// a new record is created above the newest. Who deletes does not matter: every process that reaches a milestone may.
    pub(super) fn old_in_flight(&self, index: usize) -> Option<RecordNumber> {
        let number = match &*self.processes[index] {
            Process::Starting(starting) => match starting.next() {
                StartStep::Call(Call::Create(record)) => record.number,
                StartStep::Call(Call::Read(number)) => number,
                _ => return None,
            },
            Process::Recovering(recovery) => recovery.confirm.as_ref()?.record().number,
            Process::Running(running) => running.append.as_ref()?.record().number,
            _ => return None,
        };
        let newest = self.durable.log.newest()?.number;
        self.durable.log.old(newest).contains(&number).then_some(number)
    }

    fn own_actions(&self, index: usize) -> Vec<Action> {
        match &*self.processes[index] {
            Process::Absent if self.budget.rivals > 0 && self.durable.log.newest().is_some() => {
                vec![Action::Appear]
            }
            Process::Dead => vec![Action::Start],
            Process::Absent | Process::Fenced | Process::Ended => Vec::new(),
            // It has left nothing yet, so that dying is the same as starting later.
            Process::Starting(_) => vec![Action::Call],
            Process::Recovering(recovery) => {
                let next = if recovery.confirm.is_some() { Action::Call } else { Action::Recover };
                self.and_crash(vec![next])
            }
            Process::Running(running) => {
                let mut actions = running.outer_actions();
                // Whatever else a fenced process does it could have done before it was fenced.
                if !self.is_fenced(index) {
                    actions.extend(running.inner_actions());
                    actions.extend(running.tick(self));
                    actions.extend(running.events(self));
                    return self.and_crash(actions);
                }
                actions
            }
        }
    }

    /// What a process does before any other process does anything: see [`World::at_once`].
    pub(super) fn urgent(&self, index: usize) -> Option<Action> {
        match &*self.processes[index] {
            Process::Running(running) if self.at_once => running.urgent(self),
            _ => None,
        }
    }

    /// What comes from outside to a process.
    pub(super) fn events(&self, index: usize) -> Vec<Action> {
        match &*self.processes[index] {
            Process::Running(running) if !self.is_fenced(index) => running.events(self),
            _ => Vec::new(),
        }
    }

    fn and_crash(&self, mut actions: Vec<Action>) -> Vec<Action> {
        if self.budget.crashes > 0 {
            actions.push(Action::Crash);
        }
        actions
    }

    /// Whether another attempt has started after that of this process.
    pub(super) fn is_fenced(&self, index: usize) -> bool {
        match (&*self.processes[index], self.durable.log.newest()) {
            (Process::Running(running), Some(newest)) => newest.standing.attempt.id != running.attempt(),
            _ => false,
        }
    }
}

impl Running {
    /// Steps that others can see.
    pub(super) fn outer_actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut add = |can: bool, action| {
            if can {
                actions.push(action);
            }
        };
        add(self.append.is_some(), Action::Call);
        add(self.manifest.is_some(), Action::WriteManifest);
        add(self.sink.uploading().is_some(), Action::Upload);
        add(!self.sink.commands.is_empty(), Action::SinkCommand);
        actions
    }

    /// Steps of the tasks among themselves.
    pub(super) fn inner_actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut add = |can: bool, action| {
            if can {
                actions.push(action);
            }
        };
        for (index, source) in self.sources.iter().enumerate() {
            add(!source.commands.is_empty(), Action::Command(index));
            add(source.injector.may_emit(), Action::Emit(index));
            add(!source.channel.is_empty() && self.sink.can_read(index), Action::Read(index));
        }
        actions
    }

    /// What is done at once where that is the rule: all that no other process can notice.
    pub(super) fn urgent(&self, world: &World) -> Option<Action> {
        let inner = self.inner_actions().first().copied();
        let cancel =
            || matches!(self.sink.commands.front(), Some(Command::Cancel(_))).then_some(Action::SinkCommand);
        let upload = || self.sink.uploading().map(|_| Action::Upload);
        let manifest = || self.manifest.as_ref().map(|_| Action::WriteManifest);
        inner.or_else(cancel).or_else(upload).or_else(manifest).or_else(|| self.tick(world))
    }

    /// A short wait, if there is one.
    pub(super) fn tick(&self, world: &World) -> Option<Action> {
        let wakeup = self.coordinator.next_wakeup()?;
        (wakeup.since(self.now) <= SHORT && world.has(Guard::Retry)).then_some(Action::Tick)
    }

    /// What comes from outside: long waits, failures, users.
    pub(super) fn events(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut add = |can: bool, action| {
            if can {
                actions.push(action);
            }
        };
        let expires = self.coordinator.next_wakeup().is_some_and(|wakeup| wakeup.since(self.now) > SHORT);
        add(expires && world.budget.failures > 0, Action::Expire);
        add(self.sink.uploading().is_some() && world.budget.failures > 0, Action::Decline);
        add(world.budget.checkpoints > 0, Action::Trigger);
        add(world.budget.stops > 0, Action::Stop);
        actions
    }
}
