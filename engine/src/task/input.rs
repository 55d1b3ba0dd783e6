//! The channels into a task. An input that delivered a barrier is not read until the others have delivered it too (the
//! pure [`Aligner`] decides). The task's watermark is the least over the inputs that are neither idle nor at their end;
//! where all that have not ended are idle, the task is idle, and only when all have ended has it ended.

use std::task::{Context, Poll};

use checkpoint::barrier::align::Aligner;
use env::Receiver;
use types::Timestamp;

use crate::record::Element;

struct Input {
    receiver: Receiver<Element>,
    watermark: Timestamp,
    idle: bool,
    /// The sender is gone: its task has failed, and this attempt will be cancelled.
    lost: bool,
}

/// All channels into one task.
pub(crate) struct InputGate {
    inputs: Vec<Input>,
    /// Decides which inputs are read.
    pub(crate) aligner: Aligner,
    /// Where the next poll begins, so that no input starves.
    next: usize,
    watermark: Timestamp,
    idle: bool,
}

/// What a change at one input means for the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeStep {
    /// Nothing.
    None,
    /// The task's watermark rose.
    Watermark(Timestamp),
    /// All inputs that have not ended are idle now.
    Idle,
    /// An input is active again.
    Active,
}

impl InputGate {
    pub(crate) fn new(receivers: Vec<Receiver<Element>>, aligner: Aligner) -> Self {
        let input = |receiver| Input { receiver, watermark: Timestamp::MIN, idle: false, lost: false };
        let inputs = receivers.into_iter().map(input).collect();
        Self { inputs, aligner, next: 0, watermark: Timestamp::MIN, idle: false }
    }

    /// Begins with the watermark that the task had before a restore. The inputs' own ones begin anew.
    pub(crate) fn restore_watermark(&mut self, watermark: Timestamp) {
        self.watermark = watermark;
    }

    /// The next element of an input that is not blocked. Pending for ever when all inputs are blocked or gone.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Element)> {
        for offset in 0..self.inputs.len() {
            let index = (self.next + offset) % self.inputs.len();
            let input = &mut self.inputs[index];
            if input.lost || self.aligner.is_blocked(index) {
                continue;
            }
            match input.receiver.poll_recv(cx) {
                Poll::Ready(Some(element)) => {
                    self.next = index + 1;
                    return Poll::Ready((index, element));
                }
                Poll::Ready(None) => input.lost = true,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// The task's watermark: what all inputs that count have passed.
    pub(crate) fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// `input` promised that nothing before `watermark` follows.
    pub(crate) fn on_watermark(&mut self, input: usize, watermark: Timestamp) -> TimeStep {
        let input = &mut self.inputs[input];
        input.watermark = input.watermark.max(watermark);
        input.idle = false;
        self.advance()
    }

    /// `input` may be silent for a while.
    pub(crate) fn on_idle(&mut self, input: usize) -> TimeStep {
        self.inputs[input].idle = true;
        self.advance()
    }

    /// `input` is no longer silent. Its watermark counts again; the task's never falls.
    pub(crate) fn on_active(&mut self, input: usize) -> TimeStep {
        self.inputs[input].idle = false;
        self.advance()
    }

    fn advance(&mut self) -> TimeStep {
        // What has ended holds nothing back, and says nothing about those that are silent and have not ended.
        let mut open = self.inputs.iter().filter(|input| input.watermark < Timestamp::MAX).peekable();
        let have_ended = open.peek().is_none();
        let least = open.filter(|input| !input.idle).map(|input| input.watermark).min();
        let Some(least) = least.or(have_ended.then_some(Timestamp::MAX)) else {
            let was_idle = std::mem::replace(&mut self.idle, true);
            return if was_idle { TimeStep::None } else { TimeStep::Idle };
        };
        let was_idle = std::mem::take(&mut self.idle);
        if least > self.watermark {
            self.watermark = least;
            return TimeStep::Watermark(least);
        }
        if was_idle { TimeStep::Active } else { TimeStep::None }
    }
}

#[cfg(test)]
mod tests;
