//! The oracle of the job with every kind of state: what its output must be, found one event after another in the order of
//! their times, with the standard library alone. It knows what each kind of state promises, and nothing of how it is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
};

use crate::events::{Event, LONG, MIDDLE, QUIET, SHORT};

/// What a run writes and leaves.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// All lines of the output, in no order.
    pub lines: BTreeSet<String>,
    /// Every key's events.
    pub counts: BTreeMap<u32, u64>,
    /// How many values, elements and entries had expired when somebody looked for them.
    pub expired: u64,
    /// How many alarms there were.
    pub alarms: u64,
    /// Elements that the operator's list holds in the end.
    pub held: u64,
}

/// What is kept until a time.
type Until<T> = (i64, T);

/// What the job keeps for one key.
#[derive(Default)]
struct Kept {
    count: u64,
    list: Vec<u64>,
    digits: BTreeMap<u64, u64>,
    most: Option<u64>,
    mean: Option<(u64, u64)>,
    alarm: Option<i64>,
    short: Option<Until<u64>>,
    read: Option<Until<u64>>,
    tail: Vec<Until<u64>>,
    entries: BTreeMap<u64, Until<u64>>,
    lately: Option<Until<u64>>,
    average: Option<Until<(u64, u64)>>,
    long: Option<Until<u64>>,
}

/// What `events` events come to.
#[must_use]
pub fn expected(events: u64) -> Expected {
    let mut by_key = BTreeMap::<u32, Vec<Event>>::new();
    let mut expected = Expected::default();
    let mut end = 0;
    let mut tally = BTreeMap::<u64, u64>::new();
    for event in (0..events).map(|number| Event::of(number, events)) {
        by_key.entry(event.key).or_default().push(event);
        end = event.time;
        shared(&event, &mut tally, &mut expected);
    }
    for (key, mut events) in by_key {
        expected.counts.insert(key, events.len() as u64);
        events.sort_by_key(|event| event.time);
        let mut kept = Kept::default();
        for event in events {
            kept.alarm_until(key, event.time, &mut expected);
            let line = kept.step(&event, &mut expected.expired);
            expected.lines.insert(line);
        }
        kept.alarm_until(key, end, &mut expected);
    }
    expected
}

/// What all subtasks do together with one event.
fn shared(event: &Event, tally: &mut BTreeMap<u64, u64>, expected: &mut Expected) {
    let number = event.number;
    let sum = tally.entry(number % 50).or_default();
    *sum += event.amount;
    if number.is_multiple_of(97) {
        expected.lines.insert(format!("tally {number} {sum}"));
    }
    if number.is_multiple_of(1_000) {
        expected.held += 1;
    } else {
        expected.lines.insert(format!("held {number}"));
    }
    if number.is_multiple_of(100) {
        expected.lines.insert(format!("mark {number}"));
    }
}

/// What lives at `now`, and counts what does not.
fn living<T: Copy>(kept: Option<Until<T>>, now: i64, expired: &mut u64) -> Option<T> {
    let (until, value) = kept?;
    *expired += u64::from(until <= now);
    (until > now).then_some(value)
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Kept {
    /// The alarm that the key raises before it hears of `time`, if it does.
    fn alarm_until(&mut self, key: u32, time: i64, expected: &mut Expected) {
        if let Some(at) = self.alarm.take_if(|at| *at <= time) {
            expected.lines.insert(format!("alarm {key} {at} {}", self.count));
            expected.alarms += 1;
        }
    }

    fn step(&mut self, event: &Event, expired: &mut u64) -> String {
        let Event { number, key, time: now, amount, .. } = *event;
        let until = |duration: u64| now + duration as i64;
        let mut line = format!("event {key} {number}");
        let mut say = |what: &str, value: String| line.push_str(&format!(" {what}={value}"));

        self.count += 1;
        say("count", self.count.to_string());
        self.list.push(amount);
        if self.list.len() >= 8 {
            let sum: u64 = self.list.iter().zip(1..).map(|(amount, place)| amount * place).sum();
            say("list", sum.to_string());
            let rest = if number.is_multiple_of(3) { self.list.split_off(6) } else { Vec::new() };
            self.list = rest;
        }
        *self.digits.entry(amount % 10).or_default() += amount;
        if amount.is_multiple_of(5) {
            say("removed", or_dash(self.digits.remove(&((amount + 3) % 10))));
        }
        if amount.is_multiple_of(7) {
            let shown = self.digits.iter().map(|(digit, sum)| format!("{digit}:{sum}"));
            say("digits", shown.collect::<Vec<_>>().join(","));
        }
        if amount.is_multiple_of(31) {
            self.digits.clear();
        }
        self.most = Some(self.most.map_or(amount, |most| most.max(amount)));
        if self.count.is_multiple_of(16) {
            say("most", or_dash(self.most.take()));
        }
        let (sum, parts) = self.mean.unwrap_or_default();
        self.mean = Some((sum + amount, parts + 1));
        if self.count.is_multiple_of(4) {
            say("mean", or_dash(self.mean.map(|(sum, parts)| sum / parts)));
        }
        if self.count.is_multiple_of(64) {
            self.mean = None;
        }
        self.alarm = Some(now + QUIET);

        say("short", or_dash(living(self.short, now, expired)));
        self.short = Some((until(SHORT), number));
        let read = living(self.read, now, expired);
        if amount.is_multiple_of(2) {
            say("read", or_dash(read));
            // Reading makes it live longer, too.
            self.read = read.map(|value| (until(MIDDLE), value));
        } else {
            say("taken", or_dash(read));
            self.read = if read.is_none() { Some((until(MIDDLE), number)) } else { None };
        }
        self.tail.push((until(MIDDLE), number));
        let before = self.tail.len();
        self.tail.retain(|(until, _)| *until > now);
        *expired += (before - self.tail.len()) as u64;
        let numbers: Vec<u64> = self.tail.iter().map(|(_, number)| *number).collect();
        say("tail", format!("{}:{}", numbers.len(), numbers.iter().sum::<u64>()));
        if numbers.len() > 40 {
            self.tail = numbers[numbers.len() - 10..].iter().map(|number| (until(MIDDLE), *number)).collect();
        }
        self.entries.insert(amount % 16, (until(MIDDLE), number));
        let before = self.entries.len();
        self.entries.retain(|_, (until, _)| *until > now);
        *expired += (before - self.entries.len()) as u64;
        if amount.is_multiple_of(9) {
            let gone = self.entries.remove(&((amount + 5) % 16));
            say("gone", or_dash(gone.map(|(_, number)| number)));
        }
        if self.count.is_multiple_of(3) {
            let sum: u64 = self.entries.iter().map(|(digit, (_, number))| digit * number).sum();
            say("entries", format!("{}:{sum}", self.entries.len()));
        }
        if amount.is_multiple_of(57) {
            self.entries.clear();
        }
        let lately = living(self.lately, now, expired).map_or(amount, |most| most.max(amount));
        self.lately = Some((until(MIDDLE), lately));
        say("lately", lately.to_string());
        let (sum, parts) = living(self.average, now, expired).unwrap_or_default();
        self.average = Some((until(SHORT), (sum + amount, parts + 1)));
        say("average", ((sum + amount) / (parts + 1)).to_string());
        let long = living(self.long, now, expired).unwrap_or_default() + 1;
        self.long = Some((until(LONG), long));
        say("long", long.to_string());
        line
    }
}
