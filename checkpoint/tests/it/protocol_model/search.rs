//! The search itself: every state once, with the way to it, and whether the end can be reached from everywhere.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::{
    World,
    process::{Action, Process},
};

/// What a search found.
pub(super) struct Search {
    pub(super) states: usize,
    /// What went wrong first, and the shortest way there.
    pub(super) violation: Option<String>,
}

/// A state as the search remembers it: who led to it by what.
struct Seen {
    from: usize,
    by: Option<(usize, Action)>,
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Searches everything that can follow `start`.
pub(super) fn search(start: World) -> Search {
    let mut known = HashMap::from([(fingerprint(&start), 0)]);
    let mut seen = vec![Seen { from: 0, by: None }];
    let mut edges: Vec<(usize, usize)> = Vec::new();
    let mut ended = Vec::new();
    let mut queue = VecDeque::from([(0, start)]);
    while let Some((index, world)) = queue.pop_front() {
        if world.durable.is_over() {
            ended.push(index);
        }
        for (process, action) in actions(&world) {
            let mut next = world.clone();
            let broken =
                next.act(process, action).and_then(|()| next.durable.check(next.budget.records.iter().sum()));
            let new = seen.len();
            let to = *known.entry(fingerprint(&next)).or_insert(new);
            if to == new {
                seen.push(Seen { from: index, by: Some((process, action)) });
                queue.push_back((to, next));
            }
            if let Err(what) = broken {
                let mut way = way(&seen, index);
                way.push(format!("{process}: {action:?}"));
                let violation = format!("{what}\nafter {}", way.join(", "));
                return Search { states: seen.len(), violation: Some(violation) };
            }
            edges.push((to, index));
        }
    }
    let states = seen.len();
    let stuck = first_stuck(states, edges, ended);
    let violation =
        stuck.map(|stuck| format!("the job cannot end any more\nafter {}", way(&seen, stuck).join(", ")));
    Search { states, violation }
}

fn actions(world: &World) -> Vec<(usize, Action)> {
    let mut actions = Vec::new();
    for index in 0..world.processes.len() {
        actions.extend(world.actions(index).into_iter().map(|action| (index, action)));
    }
    actions
}

fn way(seen: &[Seen], mut index: usize) -> Vec<String> {
    let mut way = Vec::new();
    while let Some((process, action)) = seen[index].by {
        way.push(format!("{process}: {action:?}"));
        index = seen[index].from;
    }
    way.reverse();
    way
}

/// The first state from which no state of `ended` can be reached; `edges` lead backwards.
fn first_stuck(states: usize, mut edges: Vec<(usize, usize)>, ended: Vec<usize>) -> Option<usize> {
    edges.sort_unstable();
    let mut reaches = vec![false; states];
    let mut queue = ended;
    while let Some(state) = queue.pop() {
        if !std::mem::replace(&mut reaches[state], true) {
            let first = edges.partition_point(|(to, _)| *to < state);
            queue.extend(edges[first..].iter().take_while(|(to, _)| *to == state).map(|(_, from)| *from));
        }
    }
    reaches.iter().position(|reaches| !reaches)
}

impl World {
    /// Whether another attempt has started after that of this process.
    pub(super) fn is_fenced(&self, index: usize) -> bool {
        match (&*self.processes[index], self.durable.history.last()) {
            (Process::Running(running), Some(newest)) => newest.standing.attempt.id != running.attempt(),
            _ => false,
        }
    }
}
