//! The steps of one process as the search takes them. They follow from the process, from what is durable and from what may
//! still happen, and from nothing in the other process: so each is computed once, however many states it is taken in. What
//! happens at once ([`World::at_once`]) is part of the step before it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Budget, World,
    durable::{Broken, Durable},
    process::{Action, Process},
};
use crate::mixer::{Kept, Shared, hash};

/// What a process can do next, and what is then.
pub(super) struct Step {
    /// What is done, with all that happens at once.
    pub(super) actions: Vec<Action>,
    pub(super) broken: Broken,
    durable: Shared<Durable>,
    process: Shared<Process>,
    budget: Budget,
}

/// The steps computed so far, and each process and each durable part that they lead to once.
#[derive(Default)]
pub(super) struct Steps {
    steps: HashMap<u64, Arc<[Step]>>,
    processes: Kept<Process>,
    durable: Kept<Durable>,
}

impl Steps {
    pub(super) fn of(&mut self, world: &World, index: usize) -> Arc<[Step]> {
        let key = hash(&(index, &world.durable, &world.processes[index], &world.budget));
        if let Some(steps) = self.steps.get(&key) {
            return Arc::clone(steps);
        }
        let mut steps = world.steps(index);
        for step in &mut steps {
            step.process = self.processes.keep(&step.process);
            step.durable = self.durable.keep(&step.durable);
        }
        let steps: Arc<[Step]> = steps.into();
        self.steps.insert(key, Arc::clone(&steps));
        steps
    }
}

impl World {
    /// This world after a step of that process.
    pub(super) fn after(&self, index: usize, step: &Step) -> Self {
        let mut after = self.clone();
        after.durable = step.durable.clone();
        after.processes[index] = step.process.clone();
        after.budget = step.budget;
        after
    }

    /// What must be true in every state, in one that came from `before`.
    fn check_after(&self, before: &Self) -> Broken {
        if self.durable == before.durable {
            return Ok(());
        }
        self.durable.check(self.budget.records.iter().sum())
    }

    fn steps(&self, index: usize) -> Vec<Step> {
        let mut follow = Follow { index, met: HashSet::from([hash(self)]), steps: Vec::new() };
        for action in self.actions(index) {
            follow.on(self, action, &[]);
        }
        follow.steps
    }
}

/// Takes a process from one state to those in which others can take part.
struct Follow {
    index: usize,
    /// The states between, so that several ways to the same are one.
    met: HashSet<u64>,
    steps: Vec<Step>,
}

impl Follow {
    fn on(&mut self, world: &World, action: Action, before: &[Action]) {
        let index = self.index;
        let actions = [before, &[action]].concat();
        let mut next = world.clone();
        let broken = next.act(index, action).and_then(|()| next.check_after(world));
        if broken.is_ok() && !self.met.insert(hash(&next)) {
            return;
        }
        if broken.is_ok()
            && let Some(urgent) = next.urgent(index)
        {
            for event in next.events(index) {
                self.on(&next, event, &actions);
            }
            return self.on(&next, urgent, &actions);
        }
        let World { durable, processes, budget, .. } = next;
        self.steps.push(Step { actions, broken, durable, process: processes[index].clone(), budget });
    }
}
