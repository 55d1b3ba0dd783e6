//! Bounded channels that count items and weight (records, bytes): the only channels between tasks.
//!
//! `channel(env, limits)`: many senders, one receiver. What one sender sends arrives in that order; senders that wait
//! for room are served first come, first served, and nobody overtakes them: this order is what aligned barriers rest
//! on. One lock is taken for each operation and never held over an await; a full channel makes its senders wait and
//! never grows.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::Env;

/// What an item weighs in a channel.
pub trait Weight {
    /// Records (or 1 for a message). 0 is allowed: marks such as barriers take no room.
    fn records(&self) -> usize;
    /// Bytes, as far as they are known.
    fn bytes(&self) -> usize;
}

/// A message that weighs one record and no bytes, for channels that carry control and not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<T>(pub T);

impl<T> Weight for Message<T> {
    fn records(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        0
    }
}

/// How much a channel may hold.
///
/// An item is admitted when it fits into all three. One that is heavier than a whole limit is admitted when no other
/// record is in the channel, so that it does not wait for ever. Items without records need room in `items` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Records in all items together.
    pub records: usize,
    /// Bytes in all items together.
    pub bytes: usize,
    /// Items, marks among them; 0 counts as 1.
    pub items: usize,
}

impl Limits {
    /// A limit on the number of items alone.
    #[must_use]
    pub const fn items(items: usize) -> Self {
        Self { records: usize::MAX, bytes: usize::MAX, items }
    }
}

/// The receiver is gone; the item that could not be sent is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed<T>(pub T);

/// Why [`Sender::try_send`] did not send; the item is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySend<T> {
    /// There is no room now, or others are waiting for it.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// A channel within `limits`. In simulation each send and receive may first let other tasks run.
pub fn channel<T: Weight>(env: &Env, limits: Limits) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        env: env.clone(),
        limits: Limits { items: limits.items.max(1), ..limits },
        state: Mutex::new(State::new()),
    });
    (Sender::new(Arc::clone(&shared)), Receiver { shared })
}

/// What one item adds to a channel.
#[derive(Clone, Copy, Default)]
struct Load {
    records: usize,
    bytes: usize,
}

impl Load {
    fn of(item: &impl Weight) -> Self {
        Self { records: item.records(), bytes: item.bytes() }
    }
}

/// What a sender waits for besides its turn to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Room,
    Close,
}

struct Waiting {
    ticket: u64,
    load: Load,
    waker: Waker,
}

struct State<T> {
    queue: VecDeque<(T, Load)>,
    used: Load,
    /// How many queued items have records.
    bearing: usize,
    /// Senders that wait for their turn, in the order in which they came.
    waiting: VecDeque<Waiting>,
    /// Senders that only want to know; at most one waker for each sender and kind.
    watching: Vec<(u64, Watch, Waker)>,
    receiver: Option<Waker>,
    senders: usize,
    closed: bool,
    /// The next ticket and the next sender's number.
    next: u64,
}

struct Shared<T> {
    env: Env,
    limits: Limits,
    state: Mutex<State<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing inside the lock can panic half-way: the state is whole even if a holder panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn new() -> Self {
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

    fn number(&mut self) -> u64 {
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
    fn has_room(&self, limits: Limits) -> bool {
        self.waiting.is_empty()
            && (self.bearing == 0
                || (self.queue.len() < limits.items
                    && self.used.records < limits.records
                    && self.used.bytes < limits.bytes))
    }

    fn push(&mut self, item: T, load: Load) {
        self.queue.push_back((item, load));
        self.used.records = self.used.records.saturating_add(load.records);
        self.used.bytes = self.used.bytes.saturating_add(load.bytes);
        self.bearing += usize::from(load.records > 0);
    }

    fn pop(&mut self) -> Option<T> {
        let (item, load) = self.queue.pop_front()?;
        self.used.records = self.used.records.saturating_sub(load.records);
        self.used.bytes = self.used.bytes.saturating_sub(load.bytes);
        self.bearing -= usize::from(load.records > 0);
        Some(item)
    }

    /// The waker of the sender whose turn it is, if its item fits.
    fn turn(&self, limits: Limits) -> Option<Waker> {
        self.waiting.front().filter(|first| self.fits(first.load, limits)).map(|first| first.waker.clone())
    }

    fn watch(&mut self, sender: u64, what: Watch, waker: &Waker) {
        match self.watching.iter_mut().find(|(id, kind, _)| (*id, *kind) == (sender, what)) {
            Some((_, _, old)) => old.clone_from(waker),
            None => self.watching.push((sender, what, waker.clone())),
        }
    }

    /// Those to be woken, after the lock is given back, because room or a turn may have come.
    fn after_room(&mut self, limits: Limits) -> Woken {
        let mut woken = Woken(Vec::new());
        woken.0.extend(self.turn(limits));
        if !self.watching.is_empty() && self.has_room(limits) {
            let rooms = self.watching.extract_if(.., |(_, kind, _)| *kind == Watch::Room);
            woken.0.extend(rooms.map(|(_, _, waker)| waker));
        }
        woken
    }
}

/// Wakers to be called once the lock is free.
#[must_use]
struct Woken(Vec<Waker>);

impl Woken {
    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// The sending end. A clone is another sender: order is kept for each of them, not between them.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    number: u64,
    blocked_ns: AtomicU64,
}

impl<T> Sender<T> {
    fn new(shared: Arc<Shared<T>>) -> Self {
        let mut state = shared.lock();
        state.senders += 1;
        let number = state.number();
        drop(state);
        Self { shared, number, blocked_ns: AtomicU64::new(0) }
    }

    /// Ready when the channel is below its limits and nobody waits for room; also when it is closed. A heavy item may
    /// still not fit. Remembers one task: let only one await a sender's readiness at a time.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.lock();
        if state.closed || state.has_room(self.shared.limits) {
            return Poll::Ready(());
        }
        state.watch(self.number, Watch::Room, cx.waker());
        Poll::Pending
    }

    /// Waits as [`poll_ready`](Self::poll_ready) says. Cancel-safe: it takes nothing.
    pub async fn ready(&self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// Waits until the receiver is gone. Cancel-safe. Let only one task await it for each sender.
    pub async fn closed(&self) {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if state.closed {
                return Poll::Ready(());
            }
            state.watch(self.number, Watch::Close, cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// How long [`send`](Self::send) has waited for room in all, on the monotonic clock: backpressure.
    #[must_use]
    pub fn blocked_time(&self) -> Duration {
        Duration::from_nanos(self.blocked_ns.load(Ordering::Relaxed))
    }
}

impl<T: Weight> Sender<T> {
    /// Sends `item`, waiting for room and for those who came before. If the future is dropped before it is ready,
    /// nothing was sent and the item is dropped with it.
    ///
    /// # Errors
    /// The receiver is gone; the item is given back.
    pub async fn send(&self, item: T) -> Result<(), Closed<T>> {
        if let Some(others) = self.shared.env.maybe_yield() {
            others.await;
        }
        match self.try_send(item) {
            Ok(()) => Ok(()),
            Err(TrySend::Closed(item)) => Err(Closed(item)),
            Err(TrySend::Full(item)) => self.wait_and_send(item).await,
        }
    }

    /// Sends `item` if there is room now and nobody waits for it.
    ///
    /// # Errors
    /// No room or no receiver; the item is given back.
    pub fn try_send(&self, item: T) -> Result<(), TrySend<T>> {
        let load = Load::of(&item);
        let mut state = self.shared.lock();
        if state.closed {
            return Err(TrySend::Closed(item));
        }
        if !state.waiting.is_empty() || !state.fits(load, self.shared.limits) {
            return Err(TrySend::Full(item));
        }
        state.push(item, load);
        let receiver = state.receiver.take();
        drop(state);
        receiver.into_iter().for_each(Waker::wake);
        Ok(())
    }

    async fn wait_and_send(&self, item: T) -> Result<(), Closed<T>> {
        let from = self.shared.env.now();
        let mut turn = Turn { shared: &self.shared, load: Load::of(&item), ticket: None };
        let mut item = Some(item);
        let sent = poll_fn(|cx| turn.poll_send(&mut item, cx)).await;
        let waited = self.shared.env.now().since(from);
        self.blocked_ns.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        sent
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.senders -= 1;
        state.watching.retain(|(id, _, _)| *id != self.number);
        let receiver = if state.senders == 0 { state.receiver.take() } else { None };
        drop(state);
        receiver.into_iter().for_each(Waker::wake);
    }
}

/// A sender's place among those that wait; dropping it gives the place up and wakes the next.
struct Turn<'a, T> {
    shared: &'a Shared<T>,
    load: Load,
    ticket: Option<u64>,
}

impl<T> Turn<'_, T> {
    fn poll_send(&mut self, item: &mut Option<T>, cx: &mut Context<'_>) -> Poll<Result<(), Closed<T>>> {
        let mut state = self.shared.lock();
        if state.closed {
            self.ticket = None;
            let item = item.take().expect("a send is not polled again after it was ready");
            return Poll::Ready(Err(Closed(item)));
        }
        let ticket = match self.ticket {
            Some(ticket) => ticket,
            None => {
                let ticket = state.number();
                state.waiting.push_back(Waiting { ticket, load: self.load, waker: cx.waker().clone() });
                self.ticket = Some(ticket);
                ticket
            }
        };
        let first = state.waiting.front().is_some_and(|first| first.ticket == ticket);
        if !(first && state.fits(self.load, self.shared.limits)) {
            if let Some(own) = state.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) {
                own.waker.clone_from(cx.waker());
            }
            return Poll::Pending;
        }
        state.waiting.pop_front();
        self.ticket = None;
        let item = item.take().expect("a send is not polled again after it was ready");
        state.push(item, self.load);
        let receiver = state.receiver.take();
        let woken = state.after_room(self.shared.limits);
        drop(state);
        receiver.into_iter().for_each(Waker::wake);
        woken.wake();
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.shared.lock();
        state.waiting.retain(|waiting| waiting.ticket != ticket);
        let woken = state.after_room(self.shared.limits);
        drop(state);
        woken.wake();
    }
}

/// The receiving end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The next item; `None` when all senders are gone and the channel is empty. Cancel-safe: no item is lost.
    pub async fn recv(&mut self) -> Option<T> {
        if let Some(others) = self.shared.env.maybe_yield() {
            others.await;
        }
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The next item, as [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.shared.lock();
        match state.pop() {
            Some(item) => {
                let woken = state.after_room(self.shared.limits);
                drop(state);
                woken.wake();
                Poll::Ready(Some(item))
            }
            None if state.senders == 0 => Poll::Ready(None),
            None => {
                match &mut state.receiver {
                    Some(waker) => waker.clone_from(cx.waker()),
                    empty => *empty = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// The next item if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        let item = state.pop()?;
        let woken = state.after_room(self.shared.limits);
        drop(state);
        woken.wake();
        Some(item)
    }

    /// How many records are in the channel.
    #[must_use]
    pub fn len_records(&self) -> usize {
        self.shared.lock().used.records
    }

    /// How many items are in the channel.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Whether no item is in the channel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let rest = mem::take(&mut state.queue);
        state.used = Load::default();
        state.bearing = 0;
        let mut woken: Vec<Waker> = state.waiting.drain(..).map(|waiting| waiting.waker).collect();
        woken.extend(state.watching.drain(..).map(|(_, _, waker)| waker));
        drop(state);
        // Items may hold anything, senders of other channels too: they are dropped outside the lock.
        drop(rest);
        Woken(woken).wake();
    }
}
