//! What a start from a snapshot would do with each state, told without doing it; and a start does just that.

use std::time::Duration;

use env::{Env, sim::Control};
use tidegate_engine::{Outcome, RestoreReport, cluster::attempt::Ask, prelude::*};
use types::ErrorKind;

use crate::{
    ledger::Ledger,
    numbers::Numbers,
    world::{assert_says, run, simulate, start, with_settings},
};

fn job(settings: &[(&str, &str)]) -> Job {
    let always = [("checkpoints.url", "/checkpoints"), ("parallelism", "2"), ("restart", "none")];
    with_settings(with_settings(Job::new("subject"), &always).unwrap(), settings).unwrap()
}

fn numbers() -> Numbers {
    Numbers::new(2, 100).paced(1, Duration::from_millis(20))
}

macro_rules! keeping {
    ($name:ident, $state:ty, $declare:expr, $keep:expr) => {
        #[derive(Clone)]
        struct $name;

        impl ProcessFunction for $name {
            type Key = u64;
            type In = u64;
            type Out = u64;
            type State = $state;

            fn declare(states: &mut Declarations) -> Self::State {
                let declare: fn(&mut Declarations) -> Self::State = $declare;
                declare(states)
            }

            fn process(
                &mut self,
                number: u64,
                kept: &Self::State,
                ctx: &mut Context<'_, Self>,
            ) -> Result<()> {
                let keep: fn(&Self::State, &mut Context<'_, Self>) -> Result<()> = $keep;
                keep(kept, ctx)?;
                ctx.emit(number);
                Ok(())
            }
        }
    };
}

type Three = (ValueState<u64>, MapState<u64, u64>, OperatorListState<u64>);
keeping!(
    Before,
    Three,
    |states| (states.value("sum"), states.map("gone"), states.operator_list("seen")),
    |kept, ctx| {
        kept.0.set(ctx, 1)?;
        kept.2.get(ctx).push(1);
        Ok(())
    }
);
type Changed = (Expiring<ValueState<u64>>, ListState<u64>, OperatorListState<u64>);
keeping!(
    After,
    Changed,
    |states| (
        states.expiring(Ttl::event_time(Duration::from_secs(1))).value("sum"),
        states.list("new"),
        states.operator_union_list("seen"),
    ),
    |_, _| Ok(())
);

/// Two operators with state.
fn before(settings: &[(&str, &str)]) -> Job {
    let job = job(settings);
    let one = job.source("numbers", numbers()).key_by(|number| *number % 7).process("one", Before);
    one.key_by(|number| *number % 7).process("two", Before).sink("out", Ledger::<u64>::default());
    job
}

/// The second is named anew and the same, or gone; the first is the same, or has changed.
fn after(settings: &[(&str, &str)], changed: bool) -> Job {
    let job = job(settings);
    let keyed = job.source("numbers", numbers()).key_by(|number| *number % 7);
    if changed {
        keyed.process("one", After).sink("out", Ledger::<u64>::default());
    } else {
        let one = keyed.process("one", Before);
        let two = one.key_by(|number| *number % 7).process("second", Before).formerly("two");
        two.sink("out", Ledger::<u64>::default());
    }
    job
}

async fn leave_checkpoint(sim: &Control, env: &Env) {
    let (process, handle) = start(sim, before(&[])).await.unwrap();
    env.sleep(Duration::from_millis(300)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    process.kill();
}

/// Operator, state, and the first word of what would be done.
fn told(report: &RestoreReport) -> Vec<(&str, &str, &str)> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Restored => "restored",
        Outcome::Begins => "begins",
        Outcome::Dropped => "dropped",
        Outcome::Refused(_) => "refused",
    };
    report.rows.iter().map(|row| (row.operator.as_str(), row.state.as_str(), word(&row.outcome))).collect()
}

#[test]
fn each_state_is_told_and_nothing_is_done() {
    simulate(async |sim, env: Env| {
        leave_checkpoint(sim, &env).await;
        let before = env.open_store("/checkpoints").unwrap().list("").await.unwrap();

        let same = after(&[], false).check_restore(&env, "/checkpoints").await.unwrap();
        let second = "second (formerly two)";
        let mut expected = vec![("numbers", "splits", "restored")];
        for operator in ["one", second] {
            expected.extend(["gone", "sum", "seen"].map(|state| (operator, state, "restored")));
        }
        assert_eq!(told(&same), expected);
        same.verdict().unwrap();
        let text = same.to_string();
        assert!(text.starts_with("restore from /checkpoints\n  operator "), "{text}");
        assert!(
            text.lines().any(|line| line.split_whitespace().eq(["one", "sum", "value", "restored"])),
            "{text}"
        );

        let changed = after(&[], true).check_restore(&env, "/checkpoints").await.unwrap();
        let expected = [
            ("numbers", "splits", "restored"),
            ("one", "gone", "refused"),
            ("one", "sum", "refused"),
            ("one", "seen", "refused"),
            ("one", "new", "begins"),
            ("two", "gone", "refused"),
            ("two", "seen", "refused"),
            ("two", "sum", "refused"),
        ];
        assert_eq!(told(&changed), expected);
        let error = changed.verdict().unwrap_err();
        assert_says(&error, ErrorKind::IncompatibleState, &["/checkpoints", "6 of 8 states refused"]);

        let dropping = after(&[("allow-dropped-state", "one,two")], true);
        let dropping = dropping.check_restore(&env, "/checkpoints").await.unwrap();
        let expected = [
            ("numbers", "splits", "restored"),
            ("one", "gone", "dropped"),
            ("one", "sum", "refused"),
            ("one", "seen", "refused"),
            ("one", "new", "begins"),
            ("two", "gone", "dropped"),
            ("two", "seen", "dropped"),
            ("two", "sum", "dropped"),
        ];
        assert_eq!(told(&dropping), expected);
        let reason = dropping.to_string();
        assert!(reason.contains("value, event-time ttl"), "{reason}");

        let report =
            after(&[("max-parallelism", "64")], false).check_restore(&env, "/checkpoints").await.unwrap();
        assert!(told(&report).contains(&("", "(max parallelism)", "refused")));
        let report =
            after(&[("allow-dropped-state", "nobody")], false).check_restore(&env, "/checkpoints").await;
        assert!(told(&report.unwrap()).contains(&("", "(dropped state)", "refused")));

        let after_all = env.open_store("/checkpoints").unwrap().list("").await.unwrap();
        assert_eq!(after_all, before, "something was written");
        // A start does what was said.
        run(sim, after(&[], true)).await.unwrap_err();
        run(sim, after(&[], false)).await.unwrap();
    });
}
