//! What happens to a task in each state, and that no end is left.

use std::sync::{Arc, Mutex};

use super::{
    At, job,
    task::{self, Change, Life, TaskStatus},
};

#[test]
fn nothing_leaves_an_end_state_and_all_others_can_be_left() {
    use job::JobStatus::{Cancelled, Failed, Finished, Suspended};
    let ends = [Finished, Failed, Cancelled, Suspended];
    assert!(job::TRANSITIONS.iter().all(|(from, _)| !ends.contains(from)));
    for (_, to) in job::TRANSITIONS {
        assert!(ends.contains(to) || job::TRANSITIONS.iter().any(|(from, _)| from == to), "{to:?}");
    }
    let ends = [TaskStatus::Finished, TaskStatus::Failed, TaskStatus::Cancelled];
    assert!(task::TRANSITIONS.iter().all(|(from, _)| !ends.contains(from)));
    for (_, to) in task::TRANSITIONS {
        assert!(ends.contains(to) || task::TRANSITIONS.iter().any(|(from, _)| from == to), "{to:?}");
    }
}

/// Makes all of `changes`; returns the states shown, and the change that cannot be with the state it met.
fn live(changes: &[Change]) -> (Vec<TaskStatus>, Option<(TaskStatus, Change)>) {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let states = Arc::clone(&shown);
    let first = At::first(Arc::new(move |status| states.lock().expect("no panic").push(status)));
    let mut life = Some(Life::Created(first));
    let mut error = None;
    for change in changes {
        match life.take().map(|life| life.after(*change)) {
            Some(Ok(next)) => {
                assert_eq!(Some(&next.status()), shown.lock().expect("no panic").last());
                life = Some(next);
            }
            Some(Err(as_before)) => error = Some((as_before.status(), *change)),
            None => panic!("nothing follows a change that cannot be"),
        }
    }
    let shown = shown.lock().expect("no panic").clone();
    (shown, error)
}

#[test]
fn a_task_shows_each_state_of_its_life() {
    use Change::{Cancel, Cancelled, Deploy, Fail, Finish, Initialize, Run, Schedule};
    let way = [Schedule, Deploy, Initialize, Run];
    let states = [
        TaskStatus::Created,
        TaskStatus::Scheduled,
        TaskStatus::Deploying,
        TaskStatus::Initializing,
        TaskStatus::Running,
    ];
    for stop in 0..=way.len() {
        let (shown, error) = live(&[&way[..stop], &[Cancel, Cancelled]].concat());
        let expected = [&states[..=stop], &[TaskStatus::Cancelling, TaskStatus::Cancelled]].concat();
        assert_eq!((shown, error), (expected, None));
    }
    // An end stays what it was when the others are ended.
    for (change, end) in [(Finish, TaskStatus::Finished), (Fail, TaskStatus::Failed)] {
        let (shown, error) = live(&[&way[..], &[change, Cancel, Cancelled]].concat());
        assert_eq!((shown, error), ([&states[..], &[end]].concat(), None));
    }
}

#[test]
fn what_cannot_happen_to_a_task_leaves_it_as_it_was() {
    use Change::{Cancel, Cancelled, Deploy, Finish, Initialize, Run, Schedule};
    let refused = |changes: &[Change], status: TaskStatus| {
        let (shown, refused) = live(changes);
        assert_eq!(refused, changes.last().map(|last| (status, *last)));
        assert_eq!(shown.last(), Some(&status));
    };
    refused(&[Run], TaskStatus::Created);
    refused(&[Schedule, Deploy, Run], TaskStatus::Deploying);
    refused(&[Schedule, Deploy, Initialize, Finish], TaskStatus::Initializing);
    refused(&[Schedule, Deploy, Initialize, Run, Finish, Run], TaskStatus::Finished);
    refused(&[Cancel, Run], TaskStatus::Cancelling);
    refused(&[Cancelled], TaskStatus::Created);
}
