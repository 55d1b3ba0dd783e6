//! `query` on states of each kind, in several runs with deletes and clears, at two parallelisms.

#![allow(clippy::disallowed_methods, reason = "damages real files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    process::Stdio,
};

use serde_json::{Value as Json, json};

use crate::{
    command::{Ran, command, tidegate},
    shop::{Model, Shop, Visit},
};

fn run(shop: &Shop, args: &[&str]) -> Ran {
    tidegate(shop.folder.path(), args)
}

fn rows(shop: &Shop, args: &[&str]) -> Vec<Json> {
    let ran = run(shop, &[&["query"], args, &["--format", "json"]].concat());
    serde_json::from_str::<Vec<Json>>(ran.good()).unwrap()
}

fn name(number: usize) -> String {
    format!("user {number}")
}

/// So many users with something of each kind.
fn model(users: usize) -> Model {
    let mut model = Model { offsets: vec![10, 20, 30, 20], ..Model::default() };
    for number in 0..users {
        let (user, wide) = (name(number), number as u32);
        model.totals.insert(user.clone(), number as i64 - 5);
        model.lines.insert(user.clone(), (0..number % 4 * 150).map(|line| format!("line {line}")).collect());
        model
            .by_hour
            .insert(user.clone(), (0..=wide % 3).map(|hour| (hour, f64::from(hour) / 4.0)).collect());
        model.timers.insert(user.clone(), [-1, i64::from(wide)].into());
        for day in 0..wide % 3 {
            model.visits.insert(Visit { user: user.clone(), day }, (day > 0).then_some(7));
        }
    }
    model.lines.retain(|_, lines| !lines.is_empty());
    model
}

/// The same content by two ways: at once on one subtask, and on three with detours through deletes, clears and appends.
fn twice() -> (Shop, Model) {
    let (shop, wanted) = (Shop::new(), model(30));
    shop.make("one", 1, std::slice::from_ref(&wanted));
    let mut detour = model(40);
    detour.lines.insert(name(1), vec!["other".to_owned()]);
    detour.by_hour.insert(name(2), BTreeMap::from([(9, 9.0)]));
    let mut half = model(30);
    half.totals.retain(|_, total| *total % 2 == 0);
    half.by_hour.clear();
    half.lines.values_mut().for_each(|lines| lines.truncate(lines.len() / 2));
    shop.make("three", 3, &[detour, Model::default(), half, wanted.clone()]);
    (shop, wanted)
}

const STATES: [(&str, &str); 8] = [
    ("shop", "total"),
    ("shop", "longest"),
    ("shop", "sum"),
    ("shop", "lines"),
    ("shop", "by-hour"),
    ("shop", "timers-event"),
    ("shop", "timers-processing"),
    ("visit", "visits"),
];

#[test]
fn neither_parallelism_nor_runs_are_seen() {
    let (shop, _) = twice();
    for (uid, state) in STATES {
        for format in ["table", "json", "csv"] {
            let of = |place| {
                run(&shop, &["query", place, "--uid", uid, "--state", state, "--format", format])
                    .good()
                    .to_owned()
            };
            let expected = of("one");
            assert_eq!(of("three"), expected, "{state}, {format}");
            assert_eq!(of("three-sp"), expected, "{state}, {format}");
        }
    }
}

#[test]
fn every_kind_of_state_is_printed_as_it_is() {
    let (shop, model) = twice();
    for (uid, state) in STATES {
        let found = rows(&shop, &["three", "--uid", uid, "--state", state]);
        let mut sorted: Vec<String> = found.iter().map(Json::to_string).collect();
        sorted.sort();
        let mut expected = expected(&model, state);
        expected.sort();
        assert_eq!(sorted, expected, "{state}");
        // All of a key stands together.
        let keys: Vec<String> = found.iter().map(|row| row["key"].to_string()).collect();
        let runs = keys.chunk_by(|a, b| a == b).count();
        assert_eq!(runs, keys.iter().collect::<BTreeSet<_>>().len(), "{state}");
        let counted = run(&shop, &["query", "three", "--uid", uid, "--state", state, "--count", "--json"]);
        let counted: Json = serde_json::from_str(counted.good()).unwrap();
        assert_eq!(counted, json!({"keys": runs, "entries": found.len()}), "{state}");
    }
    // Elements, map keys and times stand in order below their key.
    for (state, field) in [("lines", "index"), ("by-hour", "map_key"), ("timers-event", "time")] {
        let found = rows(&shop, &["three", "--uid", "shop", "--state", state]);
        for of_key in found.chunk_by(|a, b| a["key"] == b["key"]) {
            let numbers: Vec<i64> = of_key.iter().map(|row| row[field].as_i64().unwrap()).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{state}: {of_key:?}");
        }
    }
}

/// The rows of a state in no order, as JSON.
fn expected(model: &Model, state: &str) -> Vec<String> {
    let totals = model.totals.iter();
    let rows: Vec<Json> = match state {
        "total" => totals.map(|(key, total)| json!({"key": key, "value": total})).collect(),
        "longest" => totals.map(|(key, total)| json!({"key": key, "value": total.to_string()})).collect(),
        "sum" => totals.map(|(key, total)| json!({"key": key, "value": [total, 1]})).collect(),
        "lines" => {
            let elements = model.lines.iter().flat_map(|(key, lines)| {
                lines
                    .iter()
                    .enumerate()
                    .map(move |(index, line)| json!({"key": key, "index": index, "value": line}))
            });
            elements.collect()
        }
        "by-hour" => {
            let entries = model.by_hour.iter().flat_map(|(key, map)| {
                map.iter().map(move |(hour, value)| json!({"key": key, "map_key": hour, "value": value}))
            });
            entries.collect()
        }
        "timers-event" => {
            let timers = model.timers.iter();
            timers
                .flat_map(|(key, times)| times.iter().map(move |at| json!({"key": key, "time": at})))
                .collect()
        }
        "timers-processing" => Vec::new(),
        "visits" => model.visits.iter().map(|(key, value)| json!({"key": key, "value": value})).collect(),
        other => panic!("{other} is no state"),
    };
    rows.iter().map(Json::to_string).collect()
}

#[test]
fn one_key_or_those_with_a_beginning_are_found() {
    let (shop, model) = twice();
    let found = |uid: &str, state: &str, args: &[&str]| {
        rows(&shop, &[&["three", "--uid", uid, "--state", state], args].concat())
    };
    assert_eq!(found("shop", "total", &["--key", "user 3"]), [json!({"key": "user 3", "value": -2})]);
    assert_eq!(found("shop", "total", &["--key", "user 30"]), [] as [Json; 0], "it was deleted");
    assert_eq!(found("shop", "total", &["--key", "user"]), [] as [Json; 0]);
    let of_nobody = ["query", "three", "--uid", "shop", "--state", "total", "--key", "user"];
    let table = run(&shop, &of_nobody);
    assert_eq!((table.code, &*table.err), (0, "state \"total\" has nothing for a key that is user\n"));
    run(&shop, &[&of_nobody[..], &["--format", "csv"]].concat()).good();
    assert_eq!(found("shop", "lines", &["--key", "user 1"]).len(), 150);
    assert_eq!(found("shop", "timers-event", &["--key", "user 9"]).len(), 2);
    let visit = r#"{"day": 1, "user": "user 5"}"#;
    assert_eq!(
        found("visit", "visits", &["--key", visit]),
        [json!({"key": {"user": "user 5", "day": 1}, "value": 7})]
    );
    let beginning = |uid, state, key| found(uid, state, &["--key", key, "--prefix"]).len();
    let of_user_2 = model.totals.keys().filter(|key| key.starts_with("user 2")).count();
    assert_eq!(of_user_2, 11);
    assert_eq!(beginning("shop", "total", "user 2"), of_user_2);
    assert_eq!(beginning("shop", "total", ""), 30);
    assert_eq!(beginning("visit", "visits", r#"{"user": "user 5"}"#), 2);
    assert_eq!(beginning("visit", "visits", r#"{"user": "user"}"#), 0, "parts are whole");
    // No more than was asked for, and those that would come first.
    let all = found("shop", "lines", &[]);
    for limit in [0, 1, 299, 500] {
        assert_eq!(found("shop", "lines", &["--limit", &limit.to_string()]), all[..limit]);
    }
}

#[test]
fn tables_and_csv_say_what_json_says() {
    let shop = Shop::new();
    let odd = ["plain", "a,b", "say \"so\"", "two\nlines", ""];
    let totals = odd.iter().zip(-1..).map(|(key, total)| ((*key).to_owned(), total)).collect();
    shop.make("ck", 2, &[Model { totals, visits: model(2).visits, ..Model::default() }]);
    let printed = |format, uid, state| {
        run(&shop, &["query", "ck", "--uid", uid, "--state", state, "--format", format]).good().to_owned()
    };
    let json = rows(&shop, &["ck", "--uid", "shop", "--state", "total"]);
    assert_eq!(json.len(), odd.len());
    let text = printed("csv", "shop", "total");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().unwrap(), ["key", "value"].as_slice());
    let records = reader.records().map(|record| {
        let record = record.unwrap();
        json!({"key": record[0], "value": record[1].parse::<i64>().unwrap()})
    });
    assert_eq!(records.collect::<Vec<_>>(), json);
    let table = printed("table", "shop", "total");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((lines[0], lines.len()), ("KEY           VALUE", odd.len() + 1), "{table}");
    assert!(lines.contains(&"\"plain\"       -1") && lines.contains(&"\"two\\nlines\"  2"), "{table}");
    // What is neither text nor number is JSON.
    assert_eq!(
        printed("csv", "visit", "visits"),
        "key,value\n\"{\"\"user\"\":\"\"user 1\"\",\"\"day\"\":0}\",null\n"
    );
    assert_eq!(
        printed("table", "visit", "visits"),
        "KEY                               VALUE\nVisit { user: \"user 1\", day: 0 }  none\n"
    );
    assert_eq!(printed("csv", "shop", "timers-event"), "key,time\n", "a header, and nothing");
    // `--json` is `--format json`, of errors too.
    let query = ["query", "ck", "--uid", "shop", "--state", "total"];
    let json = run(&shop, &[&query[..], &["--json"]].concat());
    assert_eq!(json.good(), printed("json", "shop", "total"));
    assert_eq!(json.out.lines().count(), odd.len() + 2, "a row is a line");
    let wrong = run(&shop, &["query", "ck", "--uid", "x", "--state", "total", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Json>(&wrong.err).unwrap()["error"]["kind"], "invalid-job");
    run(&shop, &[&query[..], &["--json", "--format", "csv"]].concat()).refused_as_json(2);
    let count =
        |format| run(&shop, &[&query[..], &["--count", "--format", format]].concat()).good().to_owned();
    assert_eq!([count("table"), count("csv")], ["5 keys, 5 entries\n", "keys,entries\n5,5\n"]);
}

#[test]
fn long_tables_are_one_table() {
    let shop = Shop::new();
    let model = Model { totals: (0..2_000).map(|key| (name(key), key as i64)).collect(), ..Model::default() };
    shop.make("ck", 2, &[model]);
    let table = run(&shop, &["query", "ck", "--uid", "shop", "--state", "total"]);
    let at = table.good().lines().next().unwrap().find("VALUE").unwrap();
    assert_eq!(table.out.lines().count(), 2_001);
    for line in table.out.lines().skip(1) {
        let (key, value) = line.split_at(at);
        assert_eq!(key.trim(), format!("\"user {value}\""), "{line:?}");
    }
}

#[test]
fn columns_stand_below_one_another_whatever_the_letters() {
    let shop = Shop::new();
    // Of two columns of a terminal each, and of one.
    let names = ["\u{732b}\u{732b}", "abc", "\u{1f980}"];
    let totals = names.iter().map(|name| ((*name).to_owned(), 7)).collect();
    shop.make("ck", 1, &[Model { totals, ..Model::default() }]);
    let table = run(&shop, &["query", "ck", "--uid", "shop", "--state", "total"]);
    let mut lines: Vec<&str> = table.good().lines().collect();
    lines.sort_unstable();
    // The widest is two letters of two between quotes.
    let expected = ["\"abc\"   7", "\"\u{732b}\u{732b}\"  7", "\"\u{1f980}\"    7", "KEY     VALUE"];
    assert_eq!(lines, expected, "{}", table.out);
}

#[test]
fn operator_lists_are_printed_by_subtask() {
    let (shop, _) = twice();
    let offsets = |place| rows(&shop, &[place, "--uid", "shop", "--state", "offsets"]);
    let row = |subtask, index, value| json!({"subtask": subtask, "index": index, "value": value});
    assert_eq!(offsets("one"), [row(0, 0, 10), row(0, 1, 20), row(0, 2, 30), row(0, 3, 20)]);
    assert_eq!(offsets("three"), [row(0, 0, 10), row(0, 1, 20), row(1, 0, 20), row(2, 0, 30)]);
    // Of what is the same on all subtasks one is enough.
    assert_eq!(rows(&shop, &["three", "--uid", "shop", "--state", "rules"]), [row(0, 0, 7)]);
    let query = ["query", "three", "--uid", "shop", "--state", "offsets"];
    assert_eq!(
        run(&shop, &[&query[..], &["--limit", "1"]].concat()).good(),
        "SUBTASK  INDEX  VALUE\n0        0      10\n"
    );
    assert_eq!(run(&shop, &[&query[..], &["--count"]].concat()).good(), "4 entries\n");
    run(&shop, &[&query[..], &["--key", "7"]].concat()).refused(2, &["is an operator list and has no keys"]);
}

#[test]
fn a_wrong_question_gets_one_line() {
    let (shop, _) = twice();
    let ask = |place: &str, uid: &str, state: &str, args: &[&str]| {
        run(&shop, &[&["query", place, "--uid", uid, "--state", state], args].concat())
    };
    ask("one", "shopp", "total", &[])
        .refused(2, &["the snapshot has no operator \"shopp\"; it has shop, visit"]);
    ask("one", "shop", "totl", &[]).refused(
        2,
        &["operator shop has no state \"totl\"; there are by-hour, lines, longest, offsets, rules, sum, timers-event, "],
    );
    ask("nowhere", "shop", "total", &[]).refused(2, &["nowhere: there is no such directory"]);
    ask(env!("CARGO_BIN_EXE_tidegate"), "shop", "total", &[]).refused(2, &["is not a directory"]);
    let example = r#"as in --key '{"user":"text","day":42}'"#;
    ask("one", "visit", "visits", &["--key", "user 5"]).refused(
        2,
        &["--key user 5: it is not JSON; keys are struct Visit { user: str, day: u32 }, ", example],
    );
    ask("one", "visit", "visits", &["--key", r#"{"user": 5}"#])
        .refused(2, &["invalid type: integer `5`, expected str; keys are struct Visit", example]);
    ask("one", "visit", "visits", &["--key", r#"{"user": "x"}"#])
        .refused(2, &["field \"day\" is missing; keys"]);
    ask("one", "visit", "visits", &["--prefix", "--key", r#"{"day": 1}"#])
        .refused(2, &["field \"user\" is missing; keys"]);
    ask("one", "shop", "total", &["--prefix"]).refused(2, &["--key"]);
    ask("one", "shop", "total", &["--count", "--limit", "1"]).refused(2, &["--limit"]);
}

#[test]
fn one_key_needs_no_more_than_its_blocks() {
    let shop = Shop::new();
    // Texts that zstd cannot make small, a key for each: many blocks.
    let noise = |key: usize| {
        (0..200).map(|part| types::key_hash(&[key as u8, (key >> 8) as u8, part]).to_string()).collect()
    };
    let model =
        Model { lines: (0..400).map(|key| (name(key), vec![noise(key)])).collect(), ..Model::default() };
    shop.make("ck", 1, &[model]);
    let path = shop.folder.path().join("ck/attempt-0/runs/shop/0-1.run");
    let mut bytes = fs::read(&path).unwrap();
    // In a block behind the first batch a byte is another.
    let place = bytes.len() * 17 / 20;
    bytes[place] ^= 1;
    fs::write(&path, bytes).unwrap();
    let query = |args: &[&str]| {
        run(
            &shop,
            &[&["query", "ck", "--uid", "shop", "--state", "lines", "--format", "json"], args].concat(),
        )
    };
    let all = query(&[]);
    assert_eq!((all.code, all.err.lines().count()), (9, 1), "{}", all.err);
    let said = all.err.contains("attempt-0/runs/shop/0-1.run, offset ") && all.err.contains("checksum");
    assert!(said, "{}", all.err);
    assert!(serde_json::from_str::<Json>(&all.out).is_err(), "nobody takes a part for the whole");
    assert!(all.out.lines().count() > 100, "what came before is printed");
    let found = (0..400).filter(|key| query(&["--key", &name(*key), "--count"]).code == 0).count();
    assert!((350..400).contains(&found), "{found} of 400 keys are found beside one damaged block");
}

#[test]
fn a_reader_that_leaves_ends_a_query() {
    let shop = Shop::new();
    let model =
        Model { totals: (0..20_000).map(|key| (name(key), key as i64)).collect(), ..Model::default() };
    shop.make("ck", 2, &[model]);
    let mut child = command(shop.folder.path(), &["query", "ck", "--uid", "shop", "--state", "total"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
