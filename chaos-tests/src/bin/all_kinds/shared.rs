//! Operator state: a list, a union list and a broadcast map. Every subtask sees all events, and does its share of the work.

use tidegate::prelude::*;

use crate::source::Event;

/// A list is written out from so many elements on.
const HELD: usize = 10;

/// Numbers that are held back, marks that are dealt out, and a tally that all subtasks have.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    /// Whether the marks of others were taken out of the list, since the start or the restore.
    settled: bool,
}

pub(crate) struct Lists {
    held: OperatorListState<u64>,
    marks: OperatorListState<u64>,
    tally: BroadcastState<u64, u64>,
}

impl ProcessFunction for Shared {
    type Key = ();
    type In = Event;
    type Out = String;
    type State = Lists;

    fn declare(states: &mut Declarations) -> Lists {
        Lists {
            held: states.operator_list("held"),
            marks: states.operator_union_list("marks"),
            tally: states.operator_broadcast("tally"),
        }
    }

    fn process(&mut self, event: Event, lists: &Lists, ctx: &mut Context<'_, Self>) -> Result<()> {
        let (subtask, parallelism) =
            (u64::from(ctx.runtime().subtask.0), u64::from(ctx.runtime().parallelism));
        let is_mine = |share: u64| share % parallelism == subtask;
        let number = event.number;

        let sum = lists.tally.get_mut(ctx).entry(number % 50).or_default();
        *sum += event.amount;
        let sum = *sum;
        if number.is_multiple_of(97) && subtask == 0 {
            ctx.emit(format!("tally {number} {sum}"));
        }

        // After a restore all have the marks of all.
        if !std::mem::replace(&mut self.settled, true) {
            let marks = lists.marks.get(ctx);
            marks.sort_unstable();
            marks.dedup();
            marks.retain(|mark| is_mine(mark / 100));
        }
        if number.is_multiple_of(100) && is_mine(number / 100) {
            lists.marks.get(ctx).push(number);
        }
        if number % 1_000 == 999 || event.is_last {
            for mark in std::mem::take(lists.marks.get(ctx)) {
                ctx.emit(format!("mark {mark}"));
            }
        }

        let held = lists.held.get(ctx);
        if is_mine(number) {
            held.push(number);
        }
        if held.len() >= HELD || event.is_last {
            // Some stay for ever.
            let (stay, go) =
                std::mem::take(held).into_iter().partition(|number| number.is_multiple_of(1_000));
            *held = stay;
            let go: Vec<u64> = go;
            go.into_iter().for_each(|number| ctx.emit(format!("held {number}")));
        }
        Ok(())
    }
}
