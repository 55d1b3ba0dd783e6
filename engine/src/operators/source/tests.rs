//! The reader of a subtask's splits: turns, ends, positions, and calls that are given up.
#![allow(clippy::unwrap_used)]

use std::{
    future::Future,
    pin::pin,
    sync::Mutex,
    task::{Context, Waker},
};

use env::sim::Simulation;
use serde::{Deserialize, Serialize};
use types::{SubtaskIndex, Uid};

use super::*;

/// Splits of numbers; at each number of `waits` a reader waits once.
#[derive(Clone)]
struct Numbers {
    boundedness: Boundedness,
    splits: Vec<Part>,
    waits: Vec<u64>,
    opened: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    next: u64,
    end: u64,
}

impl Split for Part {
    fn id(&self) -> String {
        self.name.clone()
    }

    fn place(&self) -> String {
        format!("{}, {} of {}", self.name, self.next, self.end)
    }
}

struct PartReader {
    part: Part,
    waits: Vec<u64>,
}

impl Source for Numbers {
    type Out = u64;
    type Split = Part;
    type Reader = PartReader;

    fn boundedness(&self) -> Boundedness {
        self.boundedness
    }

    async fn discover(&self, _context: &SourceContext) -> Result<Vec<Part>> {
        Ok(self.splits.clone())
    }

    async fn open(&self, part: Part, context: &SourceContext) -> Result<PartReader> {
        context.env.yield_now().await;
        self.opened.lock().unwrap().push(part.name.clone());
        Ok(PartReader { part, waits: self.waits.clone() })
    }
}

impl SplitReader for PartReader {
    type Out = u64;
    type Split = Part;

    async fn read(&mut self, out: &mut SourceOutput<'_, u64>) -> Result<ReadStatus> {
        if let Some(place) = self.waits.iter().position(|wait| *wait == self.part.next) {
            self.waits.remove(place);
            yield_once().await;
        }
        while out.room() > 0 && self.part.next < self.part.end {
            if self.waits.contains(&self.part.next) {
                return Ok(ReadStatus::More);
            }
            out.emit(self.part.next);
            self.part.next += 1;
        }
        Ok(if self.part.next == self.part.end { ReadStatus::End } else { ReadStatus::More })
    }

    fn position(&self) -> Part {
        self.part.clone()
    }
}

/// Not ready the first time.
async fn yield_once() {
    let mut first = true;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
}

fn numbers(boundedness: Boundedness, splits: &[(&str, u64, u64)]) -> Numbers {
    let part = |&(name, next, end): &(&str, u64, u64)| Part { name: name.to_owned(), next, end };
    Numbers {
        boundedness,
        splits: splits.iter().map(part).collect(),
        waits: Vec::new(),
        opened: Arc::default(),
    }
}

fn context(simulation: &Simulation) -> SourceContext {
    SourceContext {
        uid: Uid::new("numbers").unwrap(),
        env: simulation.env(),
        subtask: SubtaskIndex(0),
        parallelism: 1,
    }
}

/// A reader of all splits.
fn reader(simulation: &Simulation, source: &Numbers) -> Box<dyn AnyReader> {
    let (source, context) = (erase(source.clone()), context(simulation));
    let splits = simulation.run(async |_| source.discover(&context).await).unwrap();
    let mut reader = source.reader(context);
    splits.into_iter().for_each(|split| reader.add(split));
    reader
}

#[derive(Debug, PartialEq)]
enum Got {
    Records(Vec<u64>),
    End,
}

fn got(event: ReaderEvent) -> Got {
    match event {
        ReaderEvent::Batch(mut batch) => Got::Records(batch.records.typed::<u64>().as_slice().to_vec()),
        ReaderEvent::SplitEnded => Got::End,
    }
}

fn next(simulation: &Simulation, reader: &mut dyn AnyReader, records: usize) -> Got {
    got(simulation.run(async |_| reader.next(records).await).unwrap())
}

fn all(simulation: &Simulation, reader: &mut dyn AnyReader, records: usize) -> Vec<Got> {
    let mut all = Vec::new();
    while reader.open_splits() > 0 {
        all.push(next(simulation, reader, records));
    }
    all
}

#[test]
fn bounded_splits_are_read_one_after_the_other_by_id() {
    let simulation = Simulation::new(1);
    let source = numbers(Boundedness::Bounded, &[("b", 10, 13), ("a", 0, 2), ("c", 5, 5)]);
    let mut reader = reader(&simulation, &source);
    assert_eq!(reader.open_splits(), 3);
    let expect = [
        Got::Records(vec![0, 1]),
        Got::End,
        Got::Records(vec![10, 11]),
        Got::Records(vec![12]),
        Got::End,
        Got::End,
    ];
    assert_eq!(all(&simulation, &mut *reader, 2), expect);
    assert_eq!(*source.opened.lock().unwrap(), ["a", "b", "c"]);
}

#[test]
fn unbounded_splits_take_turns_and_a_waiting_one_holds_up_none() {
    let simulation = Simulation::new(1);
    let mut source = numbers(Boundedness::Unbounded, &[("a", 0, 3), ("b", 10, 13), ("c", 20, 21)]);
    source.waits = vec![11];
    let mut reader = reader(&simulation, &source);
    let mut records = Vec::new();
    for got in all(&simulation, &mut *reader, 1) {
        match got {
            Got::Records(batch) => records.extend(batch),
            Got::End => {}
        }
    }
    let position = |number| records.iter().position(|record| *record == number).unwrap();
    assert!(position(20) < position(1) && position(10) < position(1), "each in turn: {records:?}");
    assert!(position(2) < position(12), "the one that waits holds up none: {records:?}");
    records.sort_unstable();
    assert_eq!(records, [0, 1, 2, 10, 11, 12, 20]);
}

#[test]
fn a_call_that_is_given_up_loses_nothing() {
    for boundedness in [Boundedness::Bounded, Boundedness::Unbounded] {
        let simulation = Simulation::new(1);
        let mut source = numbers(boundedness, &[("a", 0, 4), ("b", 10, 14)]);
        source.waits = vec![0, 2, 11, 12];
        let mut reader = reader(&simulation, &source);
        let mut records = Vec::new();
        for _ in 0..50 {
            if reader.open_splits() == 0 {
                break;
            }
            let poll = simulation.run(async |_| {
                let mut call = pin!(reader.next(3));
                call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            });
            match poll {
                Poll::Ready(event) => match got(event.unwrap()) {
                    Got::Records(batch) => records.extend(batch),
                    Got::End => {}
                },
                Poll::Pending => {}
            }
        }
        records.sort_unstable();
        assert_eq!(records, [0, 1, 2, 3, 10, 11, 12, 13], "{boundedness:?}");
        assert_eq!(source.opened.lock().unwrap().len(), 2, "each split is opened once");
    }
}

#[test]
fn a_reader_goes_on_from_every_snapshot() {
    let simulation = Simulation::new(1);
    let source = numbers(Boundedness::Bounded, &[("a", 0, 3), ("b", 10, 12)]);
    let whole = all(&simulation, &mut *reader(&simulation, &source), 1);
    for events in 0..whole.len() {
        let mut first = reader(&simulation, &source);
        let mut seen: Vec<_> = (0..events).map(|_| next(&simulation, &mut *first, 1)).collect();
        let part = first.snapshot().unwrap();
        assert_eq!((part.name.as_str(), part.redistribution), ("splits", Redistribution::Split));
        let mut second = erase(source.clone()).reader(context(&simulation));
        decode_splits(&part).unwrap().into_iter().for_each(|split| second.add(split));
        seen.extend(all(&simulation, &mut *second, 1));
        let records = |all: &[Got]| -> Vec<u64> {
            let records = all.iter().filter_map(|got| match got {
                Got::Records(batch) => Some(batch.clone()),
                Got::End => None,
            });
            records.flatten().collect()
        };
        assert_eq!(records(&seen), records(&whole), "after {events} events");
    }
}

#[test]
fn two_splits_of_one_name_are_refused() {
    let simulation = Simulation::new(1);
    let source = erase(numbers(Boundedness::Bounded, &[("a", 0, 1), ("a", 1, 2)]));
    let context = context(&simulation);
    let error = simulation.run(async |_| source.discover(&context).await).unwrap_err();
    assert_eq!(error.message(), "source numbers: two splits are called \"a\"");
}

#[test]
fn messages_name_the_split_and_the_position() {
    let simulation = Simulation::new(1);
    let mut reader = reader(&simulation, &numbers(Boundedness::Bounded, &[("a", 0, 3)]));
    assert_eq!(reader.place(), None);
    next(&simulation, &mut *reader, 2);
    assert_eq!(reader.place().unwrap(), "a, 2 of 3");
}
