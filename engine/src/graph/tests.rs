//! How jobs are laid out, printed, told apart and refused.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use types::{ErrorKind, SubtaskIndex};

use super::{
    exactly_once_sinks,
    logical::Partitioning,
    physical::{Plan, targets},
};
use crate::{
    prelude::*,
    testing::ends::{Discard, NoRecords, Staged},
};

/// A plan's chains, as the kinds of their vertices.
fn chains(build: impl FnOnce(&Job)) -> Vec<String> {
    let plan = plan(2, build).unwrap();
    let kinds = |chain: &super::physical::Chain| {
        let kinds: Vec<_> = chain.vertices.iter().map(|&id| plan.vertex(id).kind_name).collect();
        format!("{}x {}", chain.parallelism, kinds.join(" "))
    };
    plan.chains.iter().map(kinds).collect()
}

fn plan(parallelism: u32, build: impl FnOnce(&Job)) -> Result<Plan> {
    let job = Job::new("test").parallelism(parallelism);
    build(&job);
    job.plan()
}

fn lines(job: &Job) -> Stream<String> {
    job.source("lines", NoRecords::default())
}

fn words(job: &Job) -> Stream<String> {
    lines(job).map(|line| line)
}

#[test]
fn forward_edges_of_equal_parallelism_are_chained() {
    assert_eq!(
        chains(|job| drop(words(job).filter(|_| true).sink("out", Discard::new()))),
        ["2x source map filter sink"]
    );
    assert_eq!(
        chains(|job| drop(words(job).key_by(String::clone).count("count").sink("out", Discard::new()))),
        ["2x source map", "2x count sink"]
    );
}

#[test]
fn chains_break_where_they_must_or_are_told_to() {
    type Build = fn(Stream<String>) -> Stream<String>;
    let table: [(&str, Build, &[&str]); 7] = [
        (
            "another parallelism",
            |words| words.map(|word| word).parallelism(1),
            &["2x source map", "1x map", "2x sink"],
        ),
        (
            "disabled",
            |words| words.map(|word| word).disable_chaining(),
            &["2x source map", "2x map", "2x sink"],
        ),
        ("a new chain", |words| words.map(|word| word).start_new_chain(), &["2x source map", "2x map sink"]),
        ("partitioning", |words| words.rebalance(), &["2x source map", "2x sink"]),
        (
            "a union",
            |words| words.clone().filter(|_| true).union(words),
            &["2x source map", "2x filter", "2x sink"],
        ),
        (
            "two readers",
            |words| words.clone().filter(|_| true).union(words.filter(|_| false)),
            &["2x source map", "2x filter", "2x filter", "2x sink"],
        ),
        ("nothing", |words| words, &["2x source map sink"]),
    ];
    for (case, build, expect) in table {
        assert_eq!(chains(|job| drop(build(words(job)).sink("out", Discard::new()))), expect, "{case}");
    }
}

#[test]
fn edges_know_both_of_their_ends() {
    let plan = plan(2, |job| {
        let words = words(job);
        let upper = words.clone().map(|word| word.to_uppercase()).parallelism(3);
        upper.union(words).sink("out", Discard::new());
    })
    .unwrap();
    for (from, chain) in plan.chains.iter().enumerate() {
        for (index, output) in chain.outputs.iter().enumerate() {
            let input = &plan.chains[output.to].inputs[output.input];
            assert_eq!((input.from, input.output), (from, index));
            assert!(output.to > from, "a chain stands behind those it reads from");
        }
    }
    let partitionings: Vec<_> = plan
        .chains
        .iter()
        .flat_map(|chain| &chain.outputs)
        .map(|output| output.edge.partitioning.name())
        .collect();
    assert_eq!(partitionings, ["rebalance", "forward", "rebalance"]);
}

const SHORT: OutputTag<String> = OutputTag::new("short");

#[derive(Clone)]
struct Split;

impl ProcessFunction for Split {
    type Key = String;
    type In = String;
    type Out = u64;
    type State = (SideOutput<String>, MapState<u32, String>, ValueState<u64>);

    fn declare(states: &mut Declarations) -> Self::State {
        (states.side_output(SHORT), states.map("seen"), states.value("count"))
    }

    fn process(&mut self, _: String, _: &Self::State, _: &mut Context<'_, Self>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn the_plan_is_printed() {
    let plan = plan(2, |job| {
        let split = words(job).name("words").key_by(String::clone).process("split", Split);
        split.side_output(SHORT).sink("short", Discard::new()).parallelism(1);
        split.sink("long", Staged::new());
    })
    .unwrap();
    let expect = "\
job test: 5 tasks, 2 slots, max parallelism 128

chain 0, parallelism 2
  source (uid lines)
  map \"words\"
    -> chain 1, hash

chain 1, parallelism 2
  process (uid split), state count: value of u64, seen: map of str
    -> chain 2, rebalance, side output short
  sink (uid long)

chain 2, parallelism 1
  sink (uid short)
";
    assert_eq!(plan.explain(), expect);
    let json = plan.explain_json();
    assert_eq!(json["tasks"][1]["outputs"][0]["side_output"], "short");
    assert_eq!(json["tasks"][1]["operators"][0]["states"][0]["name"], "count");
    assert_eq!(json["slots"], 2);
}

#[test]
fn sinks_that_need_checkpoints_are_known() {
    let plan = plan(1, |job| {
        words(job).sink("plain", Discard::new());
        lines_again(job).sink("staged", Staged::new());
    })
    .unwrap();
    let uids: Vec<_> = exactly_once_sinks(&plan.graph).into_iter().map(types::Uid::as_str).collect();
    assert_eq!(uids, ["staged"]);
}

fn lines_again(job: &Job) -> Stream<String> {
    job.source("lines-again", NoRecords::default())
}

#[test]
fn any_change_that_another_process_would_notice_changes_the_fingerprint() {
    type Build = fn(&Job);
    let builds: BTreeMap<&str, Build> = BTreeMap::from([
        (
            "base",
            (|job| drop(words(job).key_by(String::clone).count("count").sink("out", Discard::new())))
                as Build,
        ),
        ("uid", |job| drop(words(job).key_by(String::clone).count("counts").sink("out", Discard::new()))),
        ("kind", |job| {
            drop(words(job).key_by(String::clone).sum("count", |_| 1_u64).sink("out", Discard::new()))
        }),
        ("state", |job| {
            drop(words(job).key_by(String::clone).sum("count", |_| 1_u32).sink("out", Discard::new()))
        }),
        ("key", |job| drop(words(job).key_by(String::len).count("count").sink("out", Discard::new()))),
        ("name", |job| {
            drop(words(job).key_by(String::clone).count("count").name("n").sink("out", Discard::new()))
        }),
        ("edge", |job| {
            drop(words(job).key_by(String::clone).count("count").rebalance().sink("out", Discard::new()))
        }),
        ("parallelism", |job| {
            drop(words(job).key_by(String::clone).count("count").sink("out", Discard::new()).parallelism(1));
        }),
    ]);
    let fingerprint = |build: &Build| plan(2, build).unwrap().fingerprint();
    let distinct: BTreeMap<_, _> = builds.iter().map(|(case, build)| (fingerprint(build), case)).collect();
    assert_eq!(distinct.len(), builds.len(), "{distinct:?}");
    assert_eq!(fingerprint(&builds["base"]), fingerprint(&builds["base"]));
}

#[test]
fn every_mistake_is_named_before_anything_runs() {
    type Build = fn(&Job);
    let table: [(Build, &str); 16] = [
        (|_| {}, "it has no source"),
        (
            |job| drop(words(job).name("two\nlines").sink("out", Discard::new())),
            "two\\nlines: the name \"two\\nlines\" must",
        ),
        (|job| drop(words(job)), "it has no sink"),
        (
            |job| {
                words(job).sink("out", Discard::new());
                drop(lines_again(job).map(|line| line).name("lost"));
            },
            "lost: nothing reads its output",
        ),
        (
            |job| drop(words(job).sink("lines", Discard::new())),
            "uid \"lines\" is used 2 times (source, sink)",
        ),
        (|job| drop(words(job).sink("Out!", Discard::new())), "sink: uid \"Out!\" is not allowed"),
        (
            |job| drop(words(job).sink("out", Discard::new()).formerly("lines")),
            "uid \"lines\" is used 2 times (source, sink)",
        ),
        (
            |job| drop(words(job).map(|word| word).parallelism(0).name("none").sink("out", Discard::new())),
            "none: parallelism 0: use at least 1",
        ),
        (
            |job| drop(words(job).sink("out", Discard::new()).parallelism(129)),
            "out: parallelism 129 is above the max parallelism 128: lower it, or raise --max-parallelism before",
        ),
        (
            |job| {
                let one = job.source("one", NoRecords::<String> { limit: Some(1), ..NoRecords::default() });
                drop(one.parallelism(2).sink("out", Discard::new()));
            },
            "one: parallelism 2, but this source can be read by 1 at most",
        ),
        (
            |job| {
                let by_map = words(job).key_by(|word| BTreeMap::from([(word.clone(), 1_u8)]));
                drop(by_map.count("count").sink("out", Discard::new()));
            },
            "count: the key of the stream",
        ),
        (
            |job| drop(words(job).process("keyless", Keyless).sink("out", Discard::new())),
            "keyless: state \"count\" belongs to a key: call key_by before process",
        ),
        (
            |job| drop(words(job).key_by(|_| ()).process("keyless", Twice).sink("out", Discard::new())),
            "keyless: side output \"short\" is declared twice",
        ),
        (
            |job| drop(words(job).side_output(SHORT).sink("out", Discard::new())),
            "map: side output \"short\" is read but not declared",
        ),
        (
            |job| {
                let split = words(job).key_by(String::clone).process("split", Split);
                drop(split.side_output(OutputTag::<u8>::new("short")).sink("out", Discard::new()));
            },
            "split: side output \"short\" is read as another type than it is declared with: alloc::string::String",
        ),
        (
            |job| drop(words(job).rebalance().name("x").sink("out", Discard::new())),
            "name: call it right after the operator",
        ),
    ];
    for (build, expect) in table {
        let error = plan(1, build).err().unwrap_or_else(|| panic!("not refused: {expect}"));
        assert_eq!(error.kind(), ErrorKind::InvalidJob);
        let problem = error.message().strip_prefix("job \"test\": ").unwrap_or(error.message());
        assert!(
            problem.starts_with(expect) || problem.contains(&format!(") {expect}")),
            "{expect:?} is not in {error}"
        );
        assert!(!error.message().contains('\n'), "{error}");
    }
}

/// Keeps every word it has seen.
#[derive(Clone)]
struct Seen;

impl ProcessFunction for Seen {
    type Key = ();
    type In = String;
    type Out = String;
    type State = BroadcastState<String, ()>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.operator_broadcast("seen")
    }

    fn process(&mut self, word: String, seen: &Self::State, ctx: &mut Context<'_, Self>) -> Result<()> {
        seen.get_mut(ctx).insert(word, ());
        Ok(())
    }
}

#[test]
fn broadcast_state_needs_an_input_that_reaches_all_subtasks() {
    type Build = fn(&Job) -> Stream<String>;
    let table: [(&str, Build, bool); 7] = [
        ("broadcast", |job| words(job).broadcast(), true),
        ("and then chained", |job| words(job).broadcast().map(|word| word), true),
        ("and then dealt out", |job| words(job).broadcast().map(|word| word).rebalance(), false),
        (
            "and then of another parallelism",
            |job| words(job).broadcast().map(|word| word).parallelism(3),
            false,
        ),
        ("of one subtask, and not broadcast", |job| words(job).parallelism(1), false),
        ("forward", words, false),
        ("one of two", |job| words(job).broadcast().union(job.source("more", NoRecords::default())), false),
    ];
    for (input, build, accepted) in table {
        let planned = plan(2, |job| drop(build(job).process("seen", Seen).sink("out", Discard::new())));
        assert_eq!(planned.is_ok(), accepted, "{input}");
        if let Err(error) = planned {
            assert_eq!(error.kind(), ErrorKind::InvalidJob);
            let text = "seen: it declares broadcast state \"seen\", and not every record reaches all of its subtasks";
            assert!(error.message().contains(text), "{error}");
        }
    }
    plan(1, |job| drop(words(job).process("seen", Seen).sink("out", Discard::new()))).expect("it is alone");
}

#[test]
fn each_subtask_sends_to_the_targets_of_its_partitioning() {
    type Row<'a> = (Partitioning, u32, u32, &'a [&'a [u32]]);
    let table: [Row<'_>; 16] = [
        (Partitioning::Forward, 3, 3, &[&[0], &[1], &[2]]),
        (Partitioning::Rescale, 2, 3, &[&[0], &[1, 2]]),
        (Partitioning::Rescale, 3, 2, &[&[0], &[0], &[1]]),
        (Partitioning::Rescale, 2, 4, &[&[0, 1], &[2, 3]]),
        (Partitioning::Rescale, 4, 2, &[&[0], &[0], &[1], &[1]]),
        (Partitioning::Rescale, 3, 5, &[&[0], &[1, 2], &[3, 4]]),
        (Partitioning::Rescale, 2, 2, &[&[0], &[1]]),
        (Partitioning::Rescale, 1, 3, &[&[0, 1, 2]]),
        (Partitioning::Rescale, 3, 1, &[&[0], &[0], &[0]]),
        (Partitioning::Rebalance, 2, 3, &[&[0, 1, 2], &[0, 1, 2]]),
        (Partitioning::Rebalance, 3, 2, &[&[0, 1], &[0, 1], &[0, 1]]),
        (Partitioning::Shuffle, 2, 3, &[&[0, 1, 2], &[0, 1, 2]]),
        (Partitioning::Broadcast, 2, 3, &[&[0, 1, 2], &[0, 1, 2]]),
        (Partitioning::Global, 2, 3, &[&[0, 1, 2], &[0, 1, 2]]),
        (Partitioning::Custom, 2, 3, &[&[0, 1, 2], &[0, 1, 2]]),
        (Partitioning::Hash, 2, 3, &[&[0, 1, 2], &[0, 1, 2]]),
    ];
    for (partitioning, upstream, downstream, expected) in table {
        let of = |from| targets(partitioning, SubtaskIndex(from), upstream, downstream);
        let found: Vec<Vec<u32>> =
            (0..upstream).map(|from| of(from).into_iter().map(|to| to.0).collect()).collect();
        assert_eq!(found, expected, "{partitioning:?} {upstream} -> {downstream}");
        // Whoever is sent nothing by anybody would wait for barriers for ever.
        let served: std::collections::BTreeSet<_> = found.into_iter().flatten().collect();
        assert_eq!(served.len() as u32, downstream, "{partitioning:?} {upstream} -> {downstream}");
    }
}

#[test]
fn all_mistakes_are_named_at_once() {
    let mistaken = plan(0, |job| drop(words(job).sink("OUT", Discard::new()))).err().unwrap();
    let expect = "job \"test\", 2 problems: (1) sink: uid \"OUT\"";
    assert!(mistaken.message().starts_with(expect), "{mistaken}");
    assert!(mistaken.message().contains("(2) lines, map, sink: parallelism 0: use at least 1"), "{mistaken}");
    let max = Job::new("test").max_parallelism(40_000).plan().err().unwrap();
    assert!(max.message().starts_with("max parallelism 40000 is not allowed"), "{max}");
}

#[test]
fn settings_are_checked_when_the_job_is_planned() {
    let bad = NoRecords::<String> { invalid: Some("rate 0: use at least 1"), ..NoRecords::default() };
    let mistaken = plan(1, |job| drop(job.source("bad", bad).sink("out", Discard::new()))).err().unwrap();
    assert_eq!(mistaken.message(), "job \"test\": bad: rate 0: use at least 1");
}

#[test]
fn a_limited_source_takes_less_than_the_job_has() {
    let one = NoRecords::<String> { limit: Some(1), ..NoRecords::default() };
    let chains = chains(|job| drop(job.source("one", one).map(|line| line).sink("out", Discard::new())));
    assert_eq!(chains, ["1x source", "2x map sink"]);
}

/// Declares keyed state, for a stream without key.
#[derive(Clone)]
struct Keyless;

impl ProcessFunction for Keyless {
    type Key = ();
    type In = String;
    type Out = u64;
    type State = ValueState<u64>;

    fn declare(states: &mut Declarations) -> Self::State {
        states.value("count")
    }

    fn process(&mut self, _: String, _: &Self::State, _: &mut Context<'_, Self>) -> Result<()> {
        Ok(())
    }
}

/// Declares a side output twice.
#[derive(Clone)]
struct Twice;

impl ProcessFunction for Twice {
    type Key = ();
    type In = String;
    type Out = u64;
    type State = [SideOutput<String>; 2];

    fn declare(states: &mut Declarations) -> Self::State {
        [states.side_output(SHORT), states.side_output(SHORT)]
    }

    fn process(&mut self, _: String, _: &Self::State, _: &mut Context<'_, Self>) -> Result<()> {
        Ok(())
    }
}
