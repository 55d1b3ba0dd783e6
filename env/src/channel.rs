//! Bounded channels that count items and weight (records, bytes): the only channels between tasks.
//!
//! `channel(env, limits)`: many senders, one receiver. What one sender sends arrives in that order; senders that wait
//! for room are served first come, first served, and nobody overtakes them: this order is what aligned barriers rest
//! on. One lock is taken for each operation and never held over an await; a full channel makes its senders wait and
//! never grows.

mod state;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use self::state::{Load, State, Watch};
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
        if !state.admits(load, self.shared.limits) {
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
        state.unwatch(self.number);
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
        let ticket = *self.ticket.get_or_insert_with(|| state.line_up(self.load, cx.waker()));
        if !state.is_turn(ticket, self.shared.limits) {
            state.keep_waiting(ticket, cx.waker());
            return Poll::Pending;
        }
        state.leave(ticket);
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
        state.leave(ticket);
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
        self.shared.lock().used.records()
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
        let (rest, woken) = state.close();
        drop(state);
        // Items may hold anything, senders of other channels too: they are dropped outside the lock.
        drop(rest);
        woken.wake();
    }
}
