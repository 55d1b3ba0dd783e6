//! What lies behind a channel's lock: the queue, what it weighs, and who waits. Pure: it wakes nobody by itself.

use std::{collections::VecDeque, task::Waker};

use super::{Limits, Weight};

/// What one item adds to a channel.
#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    records: usize,
    bytes: usize,
}

impl Load {
    pub(super) fn of(item: &impl Weight) -> Self {
        Self { records: item.records(), bytes: item.bytes() }
    }

    pub(super) fn records(self) -> usize {
        self.records
    }
}

/// What a sender waits for besides its turn to send.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    Room,
    Close,
}

struct Waiting {
    ticket: u64,
    load: Load,
    waker: Waker,
}

pub(super) struct State<T> {
    pub(super) queue: VecDeque<(T, Load)>,
    pub(super) used: Load,
    /// How many queued items have records.
    bearing: usize,
    /// Senders that wait for their turn, in the order in which they came.
    waiting: VecDeque<Waiting>,
    /// Senders that only want to know; at most one waker for each sender and kind.
    watching: Vec<(u64, Watch, Waker)>,
    pub(super) receiver: Option<Waker>,
    pub(super) senders: usize,
    pub(super) closed: bool,
    /// The next ticket and the next sender's number.
    next: u64,
}

impl<T> State<T> {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            used: Load::default(),
            bearing: 0,
            waiting: VecDeque::new(),
            watching: Vec::new(),
            receiver: None,
            senders: 0,
            closed: false,
            next: 0,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn fits(&self, load: Load, limits: Limits) -> bool {
        let in_items = self.queue.len() < limits.items;
        if load.records == 0 {
            return in_items;
        }
        self.bearing == 0
            || (in_items
                && self.used.records.saturating_add(load.records) <= limits.records
                && self.used.bytes.saturating_add(load.bytes) <= limits.bytes)
    }

    /// Whether there is room for at least something with records, and nobody waits for it.
    pub(super) fn has_room(&self, limits: Limits) -> bool {
        self.waiting.is_empty()
            && (self.bearing == 0
                || (self.queue.len() < limits.items
                    && self.used.records < limits.records
                    && self.used.bytes < limits.bytes))
    }

    pub(super) fn push(&mut self, item: T, load: Load) {
        self.queue.push_back((item, load));
        self.used.records = self.used.records.saturating_add(load.records);
        self.used.bytes = self.used.bytes.saturating_add(load.bytes);
        self.bearing += usize::from(load.records > 0);
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let (item, load) = self.queue.pop_front()?;
        self.used.records = self.used.records.saturating_sub(load.records);
        self.used.bytes = self.used.bytes.saturating_sub(load.bytes);
        self.bearing -= usize::from(load.records > 0);
        Some(item)
    }

    /// Whether an item may go in now without overtaking anybody.
    pub(super) fn admits(&self, load: Load, limits: Limits) -> bool {
        self.waiting.is_empty() && self.fits(load, limits)
    }

    /// Gives a sender a ticket for its place at the end of the line.
    pub(super) fn line_up(&mut self, load: Load, waker: &Waker) -> u64 {
        let ticket = self.number();
        self.waiting.push_back(Waiting { ticket, load, waker: waker.clone() });
        ticket
    }

    pub(super) fn is_turn(&self, ticket: u64, limits: Limits) -> bool {
        self.waiting.front().is_some_and(|first| first.ticket == ticket && self.fits(first.load, limits))
    }

    pub(super) fn keep_waiting(&mut self, ticket: u64, waker: &Waker) {
        if let Some(own) = self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) {
            own.waker.clone_from(waker);
        }
    }

    pub(super) fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }

    /// The waker of the sender whose turn it is, if its item fits.
    fn turn(&self, limits: Limits) -> Option<Waker> {
        self.waiting.front().filter(|first| self.fits(first.load, limits)).map(|first| first.waker.clone())
    }

    pub(super) fn watch(&mut self, sender: u64, what: Watch, waker: &Waker) {
        match self.watching.iter_mut().find(|(id, kind, _)| (*id, *kind) == (sender, what)) {
            Some((_, _, old)) => old.clone_from(waker),
            None => self.watching.push((sender, what, waker.clone())),
        }
    }

    pub(super) fn unwatch(&mut self, sender: u64) {
        self.watching.retain(|(id, _, _)| *id != sender);
    }

    /// Those to be woken, after the lock is given back, because room or a turn may have come.
    pub(super) fn after_room(&mut self, limits: Limits) -> Woken {
        let mut woken = Woken(Vec::new());
        woken.0.extend(self.turn(limits));
        if !self.watching.is_empty() && self.has_room(limits) {
            let rooms = self.watching.extract_if(.., |(_, kind, _)| *kind == Watch::Room);
            woken.0.extend(rooms.map(|(_, _, waker)| waker));
        }
        woken
    }

    /// Closes the channel: what was in it, and all who wait.
    pub(super) fn close(&mut self) -> (VecDeque<(T, Load)>, Woken) {
        self.closed = true;
        self.used = Load::default();
        self.bearing = 0;
        let waiting = self.waiting.drain(..).map(|waiting| waiting.waker);
        let watching = self.watching.drain(..).map(|(_, _, waker)| waker);
        (std::mem::take(&mut self.queue), Woken(waiting.chain(watching).collect()))
    }
}

/// Wakers to be called once the lock is free.
#[must_use]
pub(super) struct Woken(Vec<Waker>);

impl Woken {
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}
