//! The search itself: every state once, with the way to it, and whether the end can be reached from everywhere.

use std::collections::{HashMap, VecDeque};

use super::{World, met::Met, steps::Steps};
use crate::mixer::hash;

/// What a search found.
pub(super) struct Search {
    pub(super) states: usize,
    /// What went wrong first, and the shortest way there.
    pub(super) violation: Option<String>,
    pub(super) met: Met,
}

/// A state as the search remembers it: from which one it was reached, and by which step of which process.
#[derive(Clone, Copy)]
struct Seen {
    from: u32,
    process: u8,
    step: u8,
}

/// Searches everything that can follow `start`.
pub(super) fn search(start: World) -> Search {
    let mut known = HashMap::from([(hash(&start), 0)]);
    let mut seen = vec![Seen { from: 0, process: 0, step: 0 }];
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut ended = Vec::new();
    let mut steps = Steps::default();
    let (mut met, first) = (Met::default(), start.clone());
    let mut queue = VecDeque::from([(0, start)]);
    let mut stuck = None;
    while let Some((index, world)) = queue.pop_front() {
        met.note(&world, &first.budget);
        let mut goes_on = world.durable.is_over();
        if goes_on {
            ended.push(index);
        }
        for process in 0..world.processes.len() {
            for (nth, step) in steps.of(&world, process).iter().enumerate() {
                goes_on = true;
                let by = Seen { from: index, process: process as u8, step: nth as u8 };
                if let Err(what) = &step.broken {
                    let mut way = way(&first, &seen, index);
                    way.push(format!("{process}: {:?}", step.actions));
                    let violation = format!("{what}\nafter {}", way.join(", "));
                    return Search { states: seen.len(), violation: Some(violation), met };
                }
                let next = world.after(process, step);
                let new = seen.len() as u32;
                let to = *known.entry(hash(&next)).or_insert(new);
                if to == new {
                    seen.push(by);
                    queue.push_back((to, next));
                }
                edges.push((to, index));
            }
        }
        if !goes_on {
            stuck = Some(index);
            break;
        }
    }
    let states = seen.len();
    let stuck = stuck.or_else(|| first_stuck(states, edges, ended));
    let violation = stuck
        .map(|stuck| format!("the job cannot end any more\nafter {}", way(&first, &seen, stuck).join(", ")));
    Search { states, violation, met }
}

/// How a state was reached.
fn way(first: &World, seen: &[Seen], mut index: u32) -> Vec<String> {
    let mut taken = Vec::new();
    while index != 0 {
        let by = seen[index as usize];
        taken.push(by);
        index = by.from;
    }
    let (mut world, mut steps, mut way) = (first.clone(), Steps::default(), Vec::new());
    for Seen { process, step, .. } in taken.into_iter().rev() {
        let steps = steps.of(&world, process.into());
        let step = &steps[usize::from(step)];
        way.push(format!("{process}: {:?}", step.actions));
        world = world.after(process.into(), step);
    }
    way
}

/// The first state from which no state of `ended` can be reached; `edges` lead backwards.
fn first_stuck(states: usize, mut edges: Vec<(u32, u32)>, ended: Vec<u32>) -> Option<u32> {
    edges.sort_unstable();
    let mut reaches = vec![false; states];
    let mut queue = ended;
    while let Some(state) = queue.pop() {
        if !std::mem::replace(&mut reaches[state as usize], true) {
            let first = edges.partition_point(|(to, _)| *to < state);
            queue.extend(edges[first..].iter().take_while(|(to, _)| *to == state).map(|(_, from)| *from));
        }
    }
    reaches.iter().position(|reaches| !reaches).map(|stuck| stuck as u32)
}
