#![allow(clippy::unwrap_used)]
use std::{collections::BTreeSet, path::Path, time::Duration};

use checkpoint::restart::{FixedDelay, RestartStrategy};
use clap::{Args, Command, FromArgMatches};
use env::{Env, sim::Simulation};
use statebackend::RunCompression;
use types::{ErrorKind, Result};

use super::{settings::SETTINGS, *};
use crate::api::{job::Job, run::Checkpoints};

/// Every setting with two values, neither of them what holds where nothing is set, but for those with two values only.
const VALUES: &[(&str, &str, &str)] = &[
    ("parallelism", "2", "3"),
    ("max-parallelism", "64", "256"),
    ("state.backend", "memory", "filesystem"),
    ("state.directory", "/one", "two"),
    ("state.memory", "1MiB", "17"),
    ("state.local-recovery", "1MiB", "17"),
    ("state.options", "one=1;two={three=3;four=4}", "one=2"),
    ("checkpoints.url", "/one", "file:///two"),
    ("checkpoints.interval", "7s", "off"),
    ("checkpoints.mode", "at-least-once", "exactly-once"),
    ("checkpoints.timeout", "1m", "2m"),
    ("checkpoints.min-pause", "1s", "2s"),
    ("checkpoints.max-concurrent", "2", "3"),
    ("checkpoints.tolerable-failures", "0", "7"),
    ("checkpoints.fail-job", "false", "true"),
    ("checkpoints.retained", "1", "7"),
    ("checkpoints.keep-on-cancel", "false", "true"),
    ("checkpoints.keep-on-failure", "false", "true"),
    ("checkpoints.compression", "none", "zstd"),
    ("checkpoints.memory-max-size", "1MiB", "17"),
    ("restart", "fixed-delay:7:1s", "exponential-delay:1s:2:1m:1h:0:7"),
    ("from", "latest", "/a/savepoint"),
    ("begin-again", "true", "false"),
    ("take-over", "true", "false"),
    ("allow-volatile", "true", "false"),
    ("abandon-pending", "true", "false"),
    ("accept-foreign-output", "true", "false"),
    ("allow-dropped-state", "one,two", "three"),
    ("allow-moved", "one,two", "three"),
    ("rest", "off", "localhost:7"),
    ("source.records-per-second", "7", "8"),
    ("batch.records", "7", "8"),
    ("batch.flush", "7ms", "8ms"),
    ("channel.records", "7", "8"),
    ("channel.bytes", "7KiB", "8"),
    ("watermark.interval", "7ms", "8ms"),
    ("snapshot.slice-cells", "7", "8"),
    ("snapshot.merge-fan-in", "7", "9"),
    ("snapshot.max-runs", "7", "9"),
    ("snapshot.replace-from", "7KiB", "8"),
    ("task.cancellation-timeout", "7s", "off"),
];

/// Every standard flag of one setting: the command line that gives it, the setting, and its text there.
const FLAGS: &[(&str, &[&str], &str, &str)] = &[
    ("parallelism", &["--parallelism", "2"], "parallelism", "2"),
    ("max_parallelism", &["--max-parallelism", "64"], "max-parallelism", "64"),
    ("state", &["--state", "memory"], "state.backend", "memory"),
    ("checkpoints", &["--checkpoints", "/one"], "checkpoints.url", "/one"),
    ("interval", &["--interval", "7s"], "checkpoints.interval", "7s"),
    ("mode", &["--mode", "at-least-once"], "checkpoints.mode", "at-least-once"),
    ("restart", &["--restart", "exponential-delay::::::7"], "restart", "exponential-delay::::::7"),
    ("from", &["--from", "latest"], "from", "latest"),
    ("rest", &["--rest", "off"], "rest", "off"),
    ("begin_again", &["--begin-again"], "begin-again", "true"),
    ("take_over", &["--take-over"], "take-over", "true"),
    ("allow_volatile", &["--allow-volatile"], "allow-volatile", "true"),
    ("abandon_pending", &["--abandon-pending"], "abandon-pending", "true"),
    ("accept_foreign_output", &["--accept-foreign-output"], "accept-foreign-output", "true"),
    (
        "allow_dropped_state",
        &["--allow-dropped-state", "one", "--allow-dropped-state=two"],
        "allow-dropped-state",
        "one,two",
    ),
    ("allow_moved", &["--allow-moved", "one", "--allow-moved=two"], "allow-moved", "one,two"),
];

/// Where a text comes from, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Layer {
    Code,
    File,
    Environment,
    CommandLine,
}

const LAYERS: [Layer; 4] = [Layer::Code, Layer::File, Layer::Environment, Layer::CommandLine];

/// Settings in code that go together with a value of this setting.
fn base(name: &str) -> Settings {
    let mut settings = Settings::default();
    if name != "state.backend" {
        settings.set("checkpoints.url", "/checkpoints", "a test").unwrap();
    }
    if name == "state.options" {
        settings.set("state.backend", "rocksdb", "a test").unwrap();
    }
    settings
}

/// What holds if this text alone is set.
fn alone(name: &str, text: &str) -> Settings {
    let mut settings = base(name);
    settings.set(name, text, "a test").unwrap();
    settings.checked().unwrap()
}

fn args(given: &[&str]) -> JobArgs {
    let line = ["job"].iter().chain(given);
    let matches = JobArgs::augment_args(Command::new("job")).try_get_matches_from(line).unwrap();
    JobArgs::from_arg_matches(&matches).unwrap()
}

fn write(env: &Env, path: &str, text: &str) {
    env.files().create_new(Path::new(path)).unwrap().write_all(text.as_bytes()).unwrap();
}

/// What holds if each of these layers says something about `name`.
fn resolved(name: &str, said: &[(Layer, &str)]) -> Settings {
    let sim = Simulation::new(1);
    let mut code = base(name);
    let mut line = Vec::new();
    let mut file = None;
    for &(layer, text) in said {
        match layer {
            Layer::Code => code.set(name, text, "set in code").unwrap(),
            Layer::File => file = Some(format!("{name} = {text:?}\n")),
            Layer::Environment => {
                let variable = format!("TIDEGATE_{}", name.to_uppercase().replace(['.', '-'], "_"));
                sim.set_var(&variable, text);
            }
            Layer::CommandLine => line.extend(["--set".to_owned(), format!("{name}={text}")]),
        }
    }
    let line: Vec<_> = line.iter().map(String::as_str).collect();
    sim.run(async |env| {
        if let Some(file) = &file {
            write(&env, "tidegate.toml", file);
        }
        resolve(&env, code, &args(&line)).unwrap()
    })
}

#[test]
fn a_negative_time_is_refused_as_a_time_and_not_as_a_flag() {
    let (code, args) = (base("checkpoints.interval"), args(&["--interval", "-1s"]));
    let error = Simulation::new(1).run(async |env| resolve(&env, code, &args).unwrap_err());
    assert!(
        ["--interval", "-1s", "a number and a unit"].iter().all(|it| error.to_string().contains(it)),
        "{error}"
    );
}

/// Whoever mistypes a backend reads in the error what there is, and in the help, too.
#[test]
fn every_backend_is_named_wherever_backends_are() {
    let flags = JobArgs::augment_args(Command::new("job"));
    let flag = flags.get_arguments().find(|flag| flag.get_long() == Some("state")).unwrap();
    let flag = flag.get_help().unwrap().to_string();
    let setting = SETTINGS.iter().find(|setting| setting.name == "state.backend").unwrap();
    let stores = ["state.directory", "state.memory", "state.options"]
        .map(|name| SETTINGS.iter().find(|setting| setting.name == name).unwrap().help);
    let mut settings = base("state.memory");
    settings.set("state.options", "one=1", "a test").unwrap();
    let no_options = settings.checked().unwrap_err().to_string();
    let mut missing = Vec::new();
    for (name, backend) in Backend::NAMES.iter().filter(|(name, _)| *name != "sorted-map") {
        let mut ask = |is_there: bool, place: &str| {
            if !is_there {
                missing.push(format!("{name} in {place}"));
            }
        };
        ask(flag.contains(name), "the help of --state (engine/src/config/args.rs)");
        ask(setting.help.contains(name), "the help of state.backend (engine/src/config/settings.rs)");
        if backend.store().is_some() {
            let is_helped = stores.iter().any(|help| help.contains(name));
            ask(is_helped, "the help of state.directory, state.memory or state.options (settings.rs)");
            ask(no_options.contains(name), "the error about state.options of another backend (settings.rs)");
        }
    }
    assert!(missing.is_empty(), "not named:\n  {}", missing.join("\n  "));
}

#[test]
fn options_of_a_store_are_refused_where_there_is_none() {
    let mut settings = base("state.memory");
    settings.set("state.options", "one=1", "a test").unwrap();
    let error = settings.clone().checked().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
    assert!(error.to_string().contains("--set state.options="), "{error}");
    // As it says.
    settings.set("state.options", "", "a test").unwrap();
    settings.checked().unwrap();
}

#[test]
fn every_setting_can_be_said_in_each_layer_and_a_later_layer_wins() {
    let named: BTreeSet<_> = VALUES.iter().map(|(name, ..)| *name).collect();
    let known: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(named, known, "every setting is tried");
    for &(name, one, other) in VALUES {
        let (first, second) = (alone(name, one), alone(name, other));
        assert!(first != second, "{name}: {one} and {other} are the same");
        for weak in LAYERS {
            assert_eq!(resolved(name, &[(weak, one)]), first, "{name} = {one} in {weak:?}");
            assert_eq!(resolved(name, &[(weak, other)]), second, "{name} = {other} in {weak:?}");
            for strong in LAYERS.into_iter().filter(|strong| *strong > weak) {
                for (loses, wins, expected) in [(one, other, &second), (other, one, &first)] {
                    let found = resolved(name, &[(weak, loses), (strong, wins)]);
                    assert_eq!(found, *expected, "{name}: {loses} in {weak:?}, {wins} in {strong:?}");
                }
            }
        }
        // All four: what stands below the last one does not matter.
        let all = LAYERS.map(|layer| (layer, if layer == Layer::CommandLine { one } else { other }));
        assert_eq!(resolved(name, &all), first, "{name} in all layers");
    }
}

#[test]
fn every_standard_flag_is_its_setting_and_wins_over_set() {
    let command = JobArgs::augment_args(Command::new("job"));
    let flags: BTreeSet<_> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let tried = FLAGS.iter().map(|(id, ..)| *id).chain(["config", "set", "explain", "check_restore"]);
    assert_eq!(flags, tried.collect(), "every flag is tried");
    let resolve_line = |name: &str, line: &[&str]| {
        let (code, args) = (base(name), args(line));
        Simulation::new(1).run(async |env| resolve(&env, code, &args).unwrap())
    };
    for &(_, line, name, text) in FLAGS {
        let expected = alone(name, text);
        assert_eq!(resolve_line(name, line), expected, "{line:?}");
        let (_, one, other) = VALUES.iter().find(|(known, ..)| *known == name).unwrap();
        let set = format!("{name}={}", if *one == text { other } else { one });
        for both in [[&["--set", &set][..], line].concat(), [line, &["--set", &set][..]].concat()] {
            assert_eq!(resolve_line(name, &both), expected, "{both:?}");
        }
    }
    let twice = resolve_line("parallelism", &["--set", "parallelism=7", "--set", "parallelism = 8"]);
    assert_eq!(twice.parallelism, Some(8), "the later one wins");
}

#[test]
fn what_a_job_says_in_code_is_the_first_layer() {
    let restarts = RestartStrategy::FixedDelay(FixedDelay { attempts: 7, delay: Duration::from_secs(1) });
    let every = Checkpoints::every(Duration::from_secs(7)).to("/one").retained(7);
    let job = Job::new("job")
        .checkpoints(every.at_least_once().compression(RunCompression::None))
        .restarts(restarts)
        .state_backend(Backend::Filesystem)
        .rest(RestAddress::Off);
    let mut expected = Settings::default();
    for (name, text) in [
        ("checkpoints.interval", "7s"),
        ("checkpoints.url", "/one"),
        ("checkpoints.retained", "7"),
        ("checkpoints.mode", "at-least-once"),
        ("checkpoints.compression", "none"),
        ("restart", "fixed-delay:7:1s"),
        ("state.backend", "filesystem"),
        ("rest", "off"),
    ] {
        expected.set(name, text, "a test").unwrap();
    }
    assert_eq!(job.settings, expected);
    let memory = Job::new("job").state_backend(Backend::Memory).settings;
    assert_eq!(memory.backend, Backend::Memory);
    expected.set("checkpoints.retained", "8", "a test").unwrap();
    let found = Simulation::new(1).run(async |env| {
        resolve(&env, job.settings.clone(), &args(&["--set", "checkpoints.retained=8"])).unwrap()
    });
    assert_eq!(found, expected);
}

/// What a configuration file of this text comes to, if `--config` names it.
fn from_file(text: &str) -> Result<Settings> {
    Simulation::new(1).run(async |env| {
        write(&env, "job.toml", text);
        resolve(&env, Settings::default(), &args(&["--config", "job.toml"]))
    })
}

#[test]
fn a_configuration_file_may_say_it_as_toml_does() {
    let plain =
        "parallelism = 2\nchannel.bytes = \"7KiB\"\nallow-moved = [\"one\", \"two\"]\ntake-over = true\n";
    let sections =
        "parallelism = \"2\"\ntake-over = \"true\"\nallow-moved = \"one, two\"\n[channel]\nbytes = 7168\n";
    let found = from_file(plain).unwrap();
    assert_eq!(found, from_file(sections).unwrap());
    assert!(found.parallelism == Some(2) && found.channel_bytes == 7168 && found.take_over);
}

#[test]
fn a_mistake_is_one_line_that_says_where() {
    let check = |said: Result<Settings>, texts: &[&str]| {
        let error = said.expect_err("it is a mistake");
        let line = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidJob, "{line}");
        assert!(!line.contains('\n'), "{line}");
        for text in texts {
            assert!(line.contains(text), "{text:?} is missing in: {line}");
        }
    };
    // Damage at the beginning, within, and at the end of a line.
    check(from_file("= 1\n"), &["job.toml, line 1:"]);
    check(from_file("parallelism = 2\n\n= 3\n"), &["job.toml, line 3:"]);
    check(from_file("parallelism = 2\nrest = \n"), &["job.toml, line 2:"]);
    check(from_file("parallelism = 2\nrest = \"off\nfrom = \"auto\"\n"), &["job.toml, line 2:"]);
    check(from_file("parallelism = 2\n[channel]\nbytes = 1\nbytes = 2\n"), &["job.toml, line 4:"]);
    // Good TOML, and no setting of a job.
    check(
        from_file("paralelism = 2\n"),
        &["job.toml, line 1:", "\"paralelism\"", "did you mean \"parallelism\"?"],
    );
    check(from_file("\n[channel]\nbytes = 7\nbites = 0\n"), &["job.toml, line 4:", "\"channel.bites\""]);
    check(from_file("[channel]\nbytes = 0\n"), &["job.toml, line 2:", "channel.bytes = 0: ", "(1MiB)"]);
    check(from_file("rest = \"no\"\n"), &["job.toml, line 1:", "rest = \"no\": expected HOST:PORT"]);
    check(from_file("parallelism = 99999999999999999999\n"), &["line 1: parallelism is too large"]);
    check(from_file("allow-moved = [1]\n"), &["job.toml", "allow-moved", "a list of texts"]);
    check(from_file("parallelism = 2020-01-01\n"), &["job.toml", "parallelism", "date"]);
    let line = |given: &[&str]| {
        let args = args(given);
        Simulation::new(1).run(async |env| resolve(&env, Settings::default(), &args))
    };
    check(line(&["--config", "none.toml"]), &["there is no configuration file none.toml", "--config"]);
    check(line(&["--set", "parallelism"]), &["--set \"parallelism\"", "NAME=VALUE"]);
    check(line(&["--mode", "sometimes"]), &["--mode", "checkpoints.mode = \"sometimes\"", "at-least-once"]);
    check(line(&["--set", "checkpoints.compression=lz4"]), &["--set", "\"lz4\"", "zstd or none"]);
    let sim = Simulation::new(1);
    sim.set_var("TIDEGATE_BATCH_FLUSH", "soon");
    let wrong = sim.run(async |env| resolve(&env, Settings::default(), &JobArgs::default()));
    check(wrong, &["TIDEGATE_BATCH_FLUSH", "batch.flush = \"soon\"", "500ms"]);
    // The meaning of a setting is told in one clause, with the default.
    let rate = line(&["--set", "source.records-per-second=20k"]);
    check(
        rate,
        &["\"20k\": expected a number of 1 or more, or off; ", "of each source per second, all its subtasks"],
    );
    let rate = line(&["--set", "source.records-per-second=20k"]).unwrap_err();
    assert!(rate.message().ends_with("together (off)"), "{rate}");
    let zero = ["--interval: checkpoints.interval = \"0s\": expected a time of more than 0, or off; "];
    check(line(&["--checkpoints", "/one", "--interval", "0s"]), &zero);
    check(line(&["--restart", "fixed-delay:x:10s"]), &["ATTEMPTS is \"x\": expected a number of 1 or more"]);
    check(line(&["--restart", "failure-rate:1:0s"]), &["--restart: restart = ", "interval must not be 0"]);
}

#[test]
fn a_mistyped_environment_variable_is_refused_and_a_file_that_nobody_named_is_told() {
    let sim = Simulation::new(1);
    sim.set_var("TIDEGATE_PARALELISM", "5");
    let error = sim.run(async |env| resolve(&env, Settings::default(), &JobArgs::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidJob);
    assert!(
        error.to_string().contains("TIDEGATE_PARALELISM is no setting, did you mean TIDEGATE_PARALLELISM?")
    );

    let sim = Simulation::new(1);
    sim.set_var("TIDEGATE_HOME_OF_THE_BRAVE", "5");
    let settings = sim.run(async |env| {
        write(&env, "tidegate.toml", "parallelism = 7\n");
        resolve(&env, Settings::default(), &JobArgs::default()).unwrap()
    });
    assert_eq!(settings.parallelism, Some(7));
    let said: Vec<_> = sim.control().printed().into_iter().map(|(_, line)| line).collect();
    assert_eq!(
        said,
        [
            "settings of /tidegate.toml apply; environment and command line win",
            "environment: TIDEGATE_HOME_OF_THE_BRAVE is no setting, and is not read"
        ]
    );
}

#[test]
fn a_restore_that_is_tried_names_its_snapshot_alone() {
    for line in
        [&["--check-restore", "/sp", "--from", "/other"][..], &["--check-restore", "/sp", "--explain"]]
    {
        let command = JobArgs::augment_args(Command::new("job"));
        let error = command.try_get_matches_from(["job"].iter().chain(line)).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{line:?}");
    }
    assert_eq!(args(&["--check-restore", "/sp"]).check_restore.as_deref(), Some("/sp"));
}
