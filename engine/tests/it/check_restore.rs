//! What a start from a snapshot would do with each state, told without doing it; and a start does just that.

use std::time::Duration;

use env::{Env, sim::Control};
use tidegate_engine::{Outcome, RestoreReport, cluster::attempt::Ask, prelude::*};
use types::ErrorKind;

use crate::{
    ledger::{Ledger, Moods},
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
        // There is no event time in these jobs.
        states.expiring(Ttl::event_time(Duration::from_secs(1))).value("sum"),
        states.list("new"),
        states.operator_union_list("seen"),
    ),
    |_, _| Ok(())
);

type Text = ValueState<String>;
keeping!(Other, Text, |states| states.value("sum"), |kept, ctx| kept.set(ctx, "one".to_owned()));
type List = OperatorListState<u64>;
keeping!(Listed, List, |states| states.operator_list("sum"), |_, _| Ok(()));
type Migrated = (Expiring<ValueState<u64>>, MapState<u64, String>, OperatorListState<String>);
keeping!(
    Migrating,
    Migrated,
    |states| (
        states.expiring(Ttl::processing_time(Duration::from_secs(1))).value("sum"),
        states.migrating(|old: u64| Ok(old.to_string())).map("gone"),
        states.migrating(|old: u64| Ok(old.to_string())).operator_list("seen"),
    ),
    |_, _| Ok(())
);
keeping!(
    Mistaken,
    (ValueState<String>, MapState<u64, u64>, OperatorListState<String>),
    |states| (
        states.migrating(|old: u32| Ok(old.to_string())).value("sum"),
        states.map("gone"),
        states.migrating(|old: (u8, u8)| Ok(format!("{old:?}"))).operator_list("seen"),
    ),
    |_, _| Ok(())
);

/// Both operators with the same function.
fn both<F: ProcessFunction<Key = u64, In = u64, Out = u64> + Clone>(function: F) -> Job {
    let job = job(&[]);
    let one = job.source("numbers", numbers()).key_by(|number| *number % 7).process("one", function.clone());
    one.key_by(|number| *number % 7).process("two", function).sink("out", Ledger::<u64>::default());
    job
}

/// Two operators with state.
fn before(out: &Ledger<u64>) -> Job {
    let job = job(&[]);
    let one = job.source("numbers", numbers()).key_by(|number| *number % 7).process("one", Before);
    one.key_by(|number| *number % 7).process("two", Before).sink("out", out.clone());
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
    leave_checkpoint_with(sim, env, &Ledger::default()).await;
}

async fn leave_checkpoint_with(sim: &Control, env: &Env, out: &Ledger<u64>) {
    let (process, handle) = start(sim, before(out)).await.unwrap();
    env.sleep(Duration::from_millis(300)).await;
    handle.control().ask(Ask::Checkpoint).await.unwrap();
    process.kill();
}

/// Operator, state, and the first word of what would be done.
fn told(report: &RestoreReport) -> Vec<(&str, &str, &str)> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Restored => "restored",
        Outcome::Migrated(_) => "migrated",
        Outcome::Begins => "begins",
        Outcome::ReadsAnew => "anew",
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
        assert_says(
            &error,
            ErrorKind::IncompatibleState,
            &["/checkpoints", "the job would not start from it, for 6 reasons"],
        );

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
        assert!(reason.contains("state \"sum\": it gets an event-time ttl"), "{reason}");

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

/// The first operator under both names, with what both have kept: the second one's state does not fit it.
fn both_names(settings: &[(&str, &str)], second_is_there: bool) -> Job {
    let job = job(settings);
    let keyed = job.source("numbers", numbers()).key_by(|number| *number % 7);
    if second_is_there {
        let one = keyed.process("one", Before).key_by(|number| *number % 7);
        one.process("two", Other).sink("out", Ledger::<u64>::default());
    } else {
        keyed.process("one", Before).formerly("two").sink("out", Ledger::<u64>::default());
    }
    job
}

#[test]
fn of_two_names_one_is_restored_and_what_the_other_has_must_not_fit() {
    simulate(async |sim, env: Env| {
        let (process, handle) = start(sim, both_names(&[], true)).await.unwrap();
        env.sleep(Duration::from_millis(300)).await;
        handle.control().ask(Ask::Checkpoint).await.unwrap();
        process.kill();

        let report = both_names(&[], false).check_restore(&env, "/checkpoints").await.unwrap();
        let mut expected = vec![("numbers", "splits", "restored")];
        expected.extend(["gone", "sum", "seen"].map(|state| ("one", state, "restored")));
        let first = expected.clone();
        expected.push(("two", "sum", "refused"));
        assert_eq!(told(&report), expected);
        let reason =
            "holds state of operator one and of operator two, and one operator of the job claims both";
        assert!(report.to_string().contains(reason), "{report}");
        let refused = run(sim, both_names(&[], false)).await.unwrap_err();
        assert_says(&refused, ErrorKind::IncompatibleState, &[reason]);

        let dropping = [("allow-dropped-state", "two")];
        let report = both_names(&dropping, false).check_restore(&env, "/checkpoints").await.unwrap();
        let mut expected = first;
        expected.push(("two", "sum", "dropped"));
        assert_eq!(told(&report), expected);
        report.verdict().unwrap();
        run(sim, both_names(&dropping, false)).await.unwrap();
    });
}

#[test]
fn a_list_begins_though_a_keyed_state_had_its_name() {
    simulate(async |sim, env: Env| {
        leave_checkpoint(sim, &env).await;
        let job = job(&[("allow-dropped-state", "one,two")]);
        let one = job.source("numbers", numbers()).key_by(|number| *number % 7).process("one", Listed);
        one.sink("out", Ledger::<u64>::default());
        let report = job.check_restore(&env, "/checkpoints").await.unwrap();
        let of_sum: Vec<_> =
            told(&report).into_iter().filter(|row| row.0 == "one" && row.1 == "sum").collect();
        assert_eq!(of_sum, [("one", "sum", "dropped"), ("one", "sum", "begins")]);
    });
}

#[test]
fn output_that_a_start_would_leave_behind_is_a_reason() {
    simulate(async |sim, env: Env| {
        let busy = Ledger::default();
        busy.set_moods(Moods { retry: 1.0, ..Moods::default() });
        leave_checkpoint_with(sim, &env, &busy).await;
        let elsewhere = [("checkpoints.url", "/elsewhere"), ("from", "/checkpoints")];
        let giving_up = [&elsewhere[..], &[("abandon-pending", "true")]].concat();
        let report = after(&elsewhere[..1], false).check_restore(&env, "/checkpoints").await.unwrap();
        assert!(told(&report).contains(&("", "(pending output)", "refused")), "{report}");
        assert_says(&report.verdict().unwrap_err(), ErrorKind::IncompatibleState, &["for 1 reason"]);
        let given_up = after(&giving_up, false).check_restore(&env, "/checkpoints").await.unwrap();
        given_up.verdict().unwrap();
        assert!(env.files().metadata("/elsewhere".as_ref()).unwrap().is_none(), "it was only looked for");
        let refused = run(sim, after(&elsewhere, false)).await.unwrap_err();
        assert!(report.to_string().contains(refused.message()), "{refused}\n{report}");
    });
}

#[test]
fn what_the_line_of_history_has_dropped_before_is_dropped_again() {
    simulate(async |sim, env: Env| {
        leave_checkpoint(sim, &env).await;
        let only_one = |settings: &[(&str, &str)]| {
            let job = job(settings);
            let keyed = job.source("numbers", numbers()).key_by(|number| *number % 7);
            keyed.process("one", Before).sink("out", Ledger::<u64>::default());
            job
        };
        only_one(&[]).check_restore(&env, "/checkpoints").await.unwrap().verdict().unwrap_err();
        // It dies before its first checkpoint: the next one restores the same.
        let (process, _handle) = start(sim, only_one(&[("allow-dropped-state", "two")])).await.unwrap();
        env.sleep(Duration::from_millis(300)).await;
        process.kill();
        let report = only_one(&[]).check_restore(&env, "/checkpoints").await.unwrap();
        assert!(told(&report).contains(&("two", "sum", "dropped")), "{report}");
        report.verdict().unwrap();
        // A job of another directory has dropped nothing.
        let elsewhere = [("checkpoints.url", "/elsewhere"), ("abandon-pending", "true")];
        let report = only_one(&elsewhere).check_restore(&env, "/checkpoints").await.unwrap();
        assert!(told(&report).contains(&("two", "sum", "refused")), "{report}");
        run(sim, only_one(&[])).await.unwrap();
    });
}

/// Without a word it would count its input twice.
#[test]
fn a_source_that_reads_its_input_anew_is_told() {
    simulate(async |sim, env: Env| {
        leave_checkpoint(sim, &env).await;
        let renamed = |settings: &[(&str, &str)]| {
            let job = job(settings);
            let one = job.source("others", numbers()).key_by(|number| *number % 7).process("one", Before);
            let two = one.key_by(|number| *number % 7).process("two", Before);
            two.sink("out", Ledger::<u64>::default());
            job
        };
        let report = renamed(&[]).check_restore(&env, "/checkpoints").await.unwrap();
        assert!(told(&report).contains(&("others", "(position)", "anew")), "{report}");
        let dropping = [("allow-dropped-state", "numbers")];
        renamed(&dropping).check_restore(&env, "/checkpoints").await.unwrap().verdict().unwrap();
        run(sim, renamed(&dropping)).await.unwrap();
        let lines: Vec<_> = sim.printed().into_iter().map(|(_, line)| line).collect();
        let told = lines.iter().filter(|line| line.contains("source others is not in the snapshot")).count();
        assert_eq!(told, 1, "{lines:?}");
    });
}

#[test]
fn a_file_that_is_missing_or_too_short_is_a_reason() {
    simulate(async |sim, env: Env| {
        leave_checkpoint(sim, &env).await;
        let store = env.open_store("/checkpoints").unwrap();
        let runs = store.list("").await.unwrap().into_iter().map(|entry| entry.path);
        let path = runs.filter(|path| path.ends_with(".run")).max().unwrap();
        let whole = store.get(&path).await.unwrap().unwrap();
        let elsewhere =
            [("checkpoints.url", "/elsewhere"), ("from", "/checkpoints"), ("abandon-pending", "true")];
        for what in ["is missing", "has 10 bytes"] {
            store.delete(&path).await.unwrap();
            if what != "is missing" {
                store.put(&path, vec![whole.slice(..10)]).await.unwrap();
            }
            let report = after(&elsewhere[..1], false).check_restore(&env, "/checkpoints").await.unwrap();
            assert!(told(&report).contains(&("", "(files)", "refused")), "{report}");
            assert!(report.to_string().contains(what), "{report}");
            let refused = run(sim, after(&elsewhere, false)).await.unwrap_err();
            assert_says(&refused, ErrorKind::Corrupt, &[&path, what]);
            let records = env.open_store("/elsewhere").unwrap().list("history/").await.unwrap();
            assert!(records.is_empty(), "{records:?}");
        }
        store.put(&path, vec![whole]).await.unwrap();
        run(sim, after(&elsewhere, false)).await.unwrap();
    });
}

#[test]
fn a_migration_is_told_with_both_types_and_not_done() {
    simulate(async |sim, env: Env| {
        leave_checkpoint(sim, &env).await;
        let before = env.open_store("/checkpoints").unwrap().list("").await.unwrap();
        let report = both(Migrating).check_restore(&env, "/checkpoints").await.unwrap();
        let mut expected = vec![("numbers", "splits", "restored")];
        for operator in ["one", "two"] {
            expected.extend(["gone", "sum", "seen"].map(|state| (operator, state, "migrated")));
        }
        assert_eq!(told(&report), expected);
        report.verdict().unwrap();
        let text = report.to_string();
        let line = |words: &[&str]| {
            assert!(
                text.lines().any(|line| line.split_whitespace().eq(words.iter().copied())),
                "{words:?}: {text}"
            );
        };
        line(&["one", "gone", "map", "migrated:", "from", "u64", "to", "str"]);
        line(&["one", "sum", "value", "migrated:", "gets", "processing-time", "ttl"]);
        line(&["two", "seen", "list", "migrated:", "from", "u64", "to", "str"]);

        let report = both(Mistaken).check_restore(&env, "/checkpoints").await.unwrap();
        let text = report.to_string();
        assert!(told(&report).contains(&("one", "gone", "restored")));
        for part in [
            "state \"sum\": the type has changed: expected str, found u64; nor does the migration take it, from u32: \
             expected u32, found u64",
            "list state \"seen\": the type has changed: expected str, found u64; nor does the migration take it",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_says(&report.verdict().unwrap_err(), ErrorKind::IncompatibleState, &["for 4 reasons"]);
        assert_eq!(env.open_store("/checkpoints").unwrap().list("").await.unwrap(), before);
        run(sim, both(Mistaken)).await.unwrap_err();
        run(sim, both(Migrating)).await.unwrap();
    });
}
