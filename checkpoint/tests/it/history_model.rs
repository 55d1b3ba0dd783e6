//! All interleavings of a small job history: two rival processes, crashes, lost answers, creates that land late, old
//! records deleted, milestones every 3. The rivals are the production steppers; only the store is a model.
//!
//! The search finds no violation, and finds one as soon as a guard is taken away by lying to the steppers.

#![allow(clippy::disallowed_macros, reason = "the search prints how many states it saw")]

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

use tidegate_checkpoint::history::{
    CheckpointKind, Completion, Kind, Milestones, Record,
    step::{Answer, Append, Call, Outcome, StartStep, Starting},
};
use types::{AttemptId, Digest, RecordNumber, SnapshotFile, Timestamp};

use crate::{
    fixture::start_record,
    mixer::{Shared, hash},
};

const MILESTONES_EVERY: u64 = 3;

/// What the search allows.
#[derive(Clone, Copy)]
struct Bounds {
    records: usize,
    crashes: u8,
    /// Answers to creates that get lost, the create having happened or still on its way.
    lost_answers: u8,
}

/// The guards whose removal must be found out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removed {
    Nothing,
    /// The look for the next milestone after a create that was won.
    MilestoneCheck,
    /// Being fenced after a create that was lost.
    Fence,
    /// The restating of the completed checkpoints by records of other kinds.
    Restating,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    /// The objects that are there.
    store: BTreeMap<u64, Shared<Record>>,
    /// For each number the record that was created first: the true history.
    truth: Vec<Shared<Record>>,
    /// A create whose caller is dead or has given up waiting: it lands at any time.
    floating: Option<Shared<Record>>,
    rivals: [Shared<Rival>; 2],
    crashes: u8,
    lost_answers: u8,
    lives: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Rival {
    life: u8,
    phase: Phase,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Phase {
    Starting(Starting),
    Running { attempt: AttemptId, newest: Arc<Record>, append: Option<Append> },
    Fenced,
}

/// A state that must not be.
#[derive(Debug, PartialEq, Eq)]
enum Violation {
    /// A process acts on a record that is not the one in the history.
    Fork,
    /// An attempt starts without the last completed checkpoint.
    StartWithoutCheckpoint,
    /// A process acts on its record though a later attempt has started.
    ActAfterFenced,
}

fn milestones() -> Milestones {
    Milestones::every(MILESTONES_EVERY)
}

impl World {
    fn first(bounds: Bounds) -> Self {
        let rival =
            |life| Shared::of(Rival { life, phase: Phase::Starting(Starting::new(milestones(), None)) });
        Self {
            store: BTreeMap::new(),
            truth: Vec::new(),
            floating: None,
            rivals: [rival(0), rival(1)],
            crashes: bounds.crashes,
            lost_answers: bounds.lost_answers,
            lives: 2,
        }
    }

    /// The store's conditional create.
    fn create(&mut self, record: Shared<Record>) -> Answer {
        let number = record.number.0;
        if self.store.contains_key(&number) {
            return Answer::Taken;
        }
        if number as usize == self.truth.len() {
            self.truth.push(record.clone());
        }
        self.store.insert(number, record);
        Answer::Created
    }

    fn answer(&mut self, call: &Call) -> Answer {
        match call {
            Call::Exists(number) => Answer::Exists(self.store.contains_key(&number.0)),
            Call::Read(number) => {
                Answer::Record(self.store.get(&number.0).map(|record| Arc::clone(record.arc())))
            }
            Call::Create(record) => self.create(Shared::new(Arc::clone(record))),
        }
    }

    /// All ways in which a call can go: the world after it, and the answer.
    fn perform(&self, call: &Call) -> Vec<(Self, Answer)> {
        let mut after = self.clone();
        let answer = after.answer(call);
        let mut ways = vec![(after.clone(), answer)];
        if let (Call::Create(record), 1..) = (call, self.lost_answers) {
            after.lost_answers -= 1;
            ways.push((after, Answer::Unclear));
            ways.extend(self.afloat(record).map(|mut late| {
                late.lost_answers -= 1;
                (late, Answer::Unclear)
            }));
        }
        ways
    }

    /// The world in which this create is still on its way.
    fn afloat(&self, record: &Arc<Record>) -> Option<Self> {
        let floating = Some(Shared::new(Arc::clone(record)));
        self.floating.is_none().then(|| Self { floating, ..self.clone() })
    }

    /// A process acts on a record that it believes to be in the history.
    fn act(&self, record: &Arc<Record>, attempt: AttemptId) -> Result<(), Violation> {
        let number = record.number.0 as usize;
        if self.truth.get(number).is_none_or(|there| **there != **record) {
            return Err(Violation::Fork);
        }
        let before = &self.truth[..number];
        if let Kind::AttemptStarted(start) = &record.kind {
            let last = before.iter().rev().find_map(|record| match &record.kind {
                Kind::CheckpointCompleted(completion) => Some(completion.checkpoint),
                _ => None,
            });
            return if start.restores.checkpoint() == last {
                Ok(())
            } else {
                Err(Violation::StartWithoutCheckpoint)
            };
        }
        let is_start = |record: &&Shared<Record>| matches!(record.kind, Kind::AttemptStarted(_));
        let owner = before.iter().rev().find(is_start).map(|start| AttemptId(start.number.0));
        if owner == Some(attempt) { Ok(()) } else { Err(Violation::ActAfterFenced) }
    }
}

/// What a process does on its own between calls to the store, and what can happen to it.
struct Search {
    bounds: Bounds,
    removed: Removed,
}

impl Search {
    fn successors(&self, world: &World) -> Result<Vec<World>, Violation> {
        let mut next = Vec::new();
        for rival in 0..2 {
            next.extend(self.steps(world, rival)?);
            if world.crashes > 0 {
                next.extend(crashes(world, rival));
            }
        }
        if let Some(record) = &world.floating {
            let mut landed = World { floating: None, ..world.clone() };
            landed.create(record.clone());
            next.push(landed);
        }
        for &number in world.store.keys() {
            let above = milestones().above(RecordNumber(number)).0;
            if !milestones().contain(RecordNumber(number)) && world.store.contains_key(&above) {
                let mut deleted = world.clone();
                deleted.store.remove(&number);
                next.push(deleted);
            }
        }
        Ok(next)
    }

    fn steps(&self, world: &World, rival: usize) -> Result<Vec<World>, Violation> {
        let into = |mut world: World, phase| {
            let life = world.rivals[rival].life;
            world.rivals[rival] = Shared::of(Rival { life, phase });
            world
        };
        let life = world.rivals[rival].life;
        match &world.rivals[rival].phase {
            Phase::Fenced => Ok(Vec::new()),
            Phase::Starting(starting) => match starting.next() {
                StartStep::LostRecord { .. } => panic!("no hint was ahead"),
                StartStep::Decide(newest) => {
                    let mut decided = starting.clone();
                    decided.decided(Arc::new(start_record(newest.as_deref(), life)));
                    Ok(vec![into(world.clone(), Phase::Starting(decided))])
                }
                StartStep::Started(record) => {
                    let attempt = AttemptId(record.number.0);
                    world.act(&record, attempt)?;
                    Ok(vec![into(world.clone(), Phase::Running { attempt, newest: record, append: None })])
                }
                StartStep::Call(call) => Ok(world
                    .perform(&call)
                    .into_iter()
                    .map(|(world, answer)| {
                        let phase = Phase::Starting(self.told(starting, answer));
                        into(world, phase)
                    })
                    .collect()),
            },
            Phase::Running { attempt, newest, append: None } => {
                if world.truth.len() >= self.bounds.records {
                    return Ok(Vec::new());
                }
                let begin = |record| {
                    let append = Some(Append::new(Arc::new(record), milestones()));
                    let (attempt, newest) = (*attempt, Arc::clone(newest));
                    into(world.clone(), Phase::Running { attempt, newest, append })
                };
                Ok(self.next_records(newest).into_iter().map(begin).collect())
            }
            Phase::Running { attempt, newest, append: Some(append) } => {
                let mut next = Vec::new();
                for (world, answer) in world.perform(&append.call()) {
                    let (mut append, attempt) = (append.clone(), *attempt);
                    let lies = self.removed == Removed::MilestoneCheck && matches!(answer, Answer::Exists(_));
                    let running = |newest, append| Phase::Running { attempt, newest, append };
                    let phase = match append.answer(if lies { Answer::Exists(false) } else { answer }) {
                        None => running(Arc::clone(newest), Some(append)),
                        Some(Outcome::Won) => {
                            world.act(append.record(), attempt)?;
                            running(Arc::clone(append.record()), None)
                        }
                        Some(Outcome::Lost(newer)) if self.removed == Removed::Fence => running(newer, None),
                        Some(Outcome::Lost(_) | Outcome::Past) => Phase::Fenced,
                    };
                    next.push(into(world, phase));
                }
                Ok(next)
            }
        }
    }

    /// The stepper after an answer; without the milestone check, after the answer that lets it start.
    fn told(&self, starting: &Starting, answer: Answer) -> Starting {
        let told = |answer| {
            let mut starting = starting.clone();
            starting.answer(answer);
            starting
        };
        if self.removed == Removed::MilestoneCheck && matches!(answer, Answer::Exists(_)) {
            let lied_to = told(Answer::Exists(false));
            if matches!(lied_to.next(), StartStep::Started(_)) {
                return lied_to;
            }
        }
        told(answer)
    }

    /// What an attempt may append: the next checkpoint, or the confirmation of the last.
    fn next_records(&self, newest: &Record) -> Vec<Record> {
        let checkpoint = newest.standing.highest_checkpoint.next();
        let manifest = SnapshotFile { path: "m".into(), len: 0, digest: Digest(0) };
        let completed =
            Kind::CheckpointCompleted(Completion { checkpoint, manifest, kind: CheckpointKind::Ordinary });
        let confirmed = newest.standing.unconfirmed.last().map(|&last| Kind::SinksConfirmed(last));
        let record = |kind| {
            let forgets = matches!(kind, Kind::SinksConfirmed(_)) && self.removed == Removed::Restating;
            let mut record = Record::after(Some(newest), Timestamp(0), kind).unwrap();
            if forgets {
                record.standing.completed.clear();
            }
            record
        };
        [Some(completed), confirmed].into_iter().flatten().map(record).collect()
    }
}

/// The process dies and is started again; a create that it had sent may be on its way.
fn crashes(world: &World, rival: usize) -> Vec<World> {
    let sent = match &world.rivals[rival].phase {
        Phase::Fenced | Phase::Running { append: None, .. } => None,
        Phase::Running { append: Some(append), .. } => Some(append.call()),
        Phase::Starting(starting) => match starting.next() {
            StartStep::Call(call) => Some(call),
            _ => None,
        },
    };
    if matches!(world.rivals[rival].phase, Phase::Fenced) {
        return Vec::new();
    }
    let afloat = match &sent {
        Some(Call::Create(record)) => world.afloat(record),
        _ => None,
    };
    let crashed = |mut world: World| {
        // The hint is what the last living writer left; a late starter may read it long before it goes on.
        let hint = (world.truth.len() as u64).checked_sub(2).map(RecordNumber);
        let phase = Phase::Starting(Starting::new(milestones(), hint));
        world.rivals[rival] = Shared::of(Rival { life: world.lives, phase });
        world.lives += 1;
        world.crashes -= 1;
        world
    };
    [Some(world.clone()), afloat].into_iter().flatten().map(crashed).collect()
}

/// Searches breadth first; the number of states, or the first violation and how many steps lead to it.
fn search(bounds: Bounds, removed: Removed) -> Result<Explored, (Violation, usize)> {
    let search = Search { bounds, removed };
    let first = World::first(bounds);
    let mut seen = HashSet::from([hash(&first)]);
    let mut queue = VecDeque::from([(first, 0)]);
    let mut explored = Explored::default();
    while let Some((world, depth)) = queue.pop_front() {
        explored.states += 1;
        explored.note(&world);
        for next in search.successors(&world).map_err(|violation| (violation, depth))? {
            if seen.insert(hash(&next)) {
                queue.push_back((next, depth + 1));
            }
        }
    }
    Ok(explored)
}

/// What a search came across, so that it is known to have looked where it matters.
#[derive(Debug, Default)]
struct Explored {
    states: usize,
    fenced: usize,
    deleted: usize,
    /// Records created in the deleted past.
    past: usize,
    longest: usize,
}

impl Explored {
    fn note(&mut self, world: &World) {
        self.longest = self.longest.max(world.truth.len());
        self.fenced += usize::from(world.rivals.iter().any(|rival| rival.phase == Phase::Fenced));
        self.deleted += usize::from(world.store.len() < world.truth.len());
        let is_true =
            |(number, record): (&u64, &Shared<Record>)| world.truth.get(*number as usize) == Some(record);
        self.past += usize::from(!world.store.iter().all(is_true));
    }
}

/// Bounds that fit a test run. Wider ones were searched once: 5 records and 2 crashes make 13.9 million states.
#[test]
fn no_interleaving_breaks_the_history() {
    for bounds in [
        Bounds { records: 3, crashes: 2, lost_answers: 0 },
        Bounds { records: 3, crashes: 1, lost_answers: 1 },
        Bounds { records: 7, crashes: 0, lost_answers: 0 },
        Bounds { records: 5, crashes: 1, lost_answers: 0 },
    ] {
        let explored = search(bounds, Removed::Nothing).expect("the rules are safe");
        println!("{bounds:?}: {explored:?}", bounds = (bounds.records, bounds.crashes, bounds.lost_answers));
        assert!(explored.fenced > 0 && explored.deleted > 0 && explored.past > 0, "{explored:?}");
        assert!(explored.longest >= bounds.records, "{explored:?}");
    }
}

#[test]
fn without_the_milestone_check_the_history_forks() {
    let bounds = Bounds { records: 5, crashes: 0, lost_answers: 0 };
    assert!(search(bounds, Removed::Nothing).is_ok());
    assert_eq!(search(bounds, Removed::MilestoneCheck).unwrap_err().0, Violation::Fork);
}

#[test]
fn without_the_fence_an_old_attempt_goes_on() {
    let bounds = Bounds { records: 4, crashes: 0, lost_answers: 0 };
    assert_eq!(search(bounds, Removed::Fence).unwrap_err().0, Violation::ActAfterFenced);
}

#[test]
fn without_restating_an_attempt_starts_without_its_checkpoint() {
    let bounds = Bounds { records: 4, crashes: 0, lost_answers: 0 };
    assert_eq!(search(bounds, Removed::Restating).unwrap_err().0, Violation::StartWithoutCheckpoint);
}
