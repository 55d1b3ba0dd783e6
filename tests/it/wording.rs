//! What must not stand in any file: unfinished work, words that have a better one, machine paths, strange addresses.

use crate::tree;

/// Unfinished or switched-off work. Split, so that this file does not complain about itself.
const UNFINISHED: [&str; 9] = [
    concat!("todo", "!("),
    concat!("unimpl", "emented!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[", "ignore"),
    concat!("d", "bg!("),
    concat!("placeholder ", "for"),
    concat!("not yet ", "implemented"),
];

/// Places of one machine.
const MACHINE_PATHS: [&str; 3] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// Words for which the list in `docs/STYLE.md` has a better one.
const BANNED_WORDS: [&str; 3] = ["slave", "whitelist", "blacklist"];
/// Endings of names that say nothing, and the names of Flink's and RocksDB's that have one.
const BANNED_ENDINGS: [&str; 3] = ["Handler", "Processor", "Manager"];
const NAMES_OF_OTHERS: [&str; 3] = ["JobManager", "TaskManager", "WriteBufferManager"];

/// Hosts that a file may link to: public, and there for good.
const HOSTS: [&str; 12] = [
    // A sample of an address, which leads nowhere.
    "a.b",
    "127.0.0.1",
    "localhost",
    "doc.rust-lang.org",
    "docs.rs",
    "flink.apache.org",
    "github.com",
    "nightlies.apache.org",
    "prometheus.io",
    "rustsec.org",
    "www.rust-lang.org",
    "www.apache.org",
];

/// The style sheet names the words that are banned.
const STYLE: &str = "docs/STYLE.md";

#[test]
fn nothing_is_unfinished() {
    complain("unfinished work:", |line| first_of(&UNFINISHED, line));
}

#[test]
fn no_path_of_a_machine() {
    complain("paths of one machine:", |line| first_of(&MACHINE_PATHS, line));
}

#[test]
fn words_have_one_meaning() {
    complain("words that have a better one in docs/STYLE.md:", banned_word);
    assert_eq!(banned_word("the slave of"), Some("slave".to_owned()));
    assert_eq!(banned_word("struct FileManager {"), Some("FileManager".to_owned()));
    assert_eq!(banned_word("the JobManager asks TaskManagers"), None);
}

#[test]
fn addresses_are_public() {
    complain("addresses outside of the list in tests/it/wording.rs:", strange_host);
    assert_eq!(strange_host("see https://docs.rs/zstd and http://localhost:8081/x"), None);
    assert_eq!(strange_host("http://mirror.example/simple"), Some("mirror.example".to_owned()));
}

/// Fails if `offence` finds anything in any line of any file.
#[track_caller]
fn complain(rule: &str, offence: impl Fn(&str) -> Option<String>) {
    let mut complaints = Vec::new();
    for file in
        tree::files().iter().filter(|file| file.path != STYLE && !file.path.ends_with("it/wording.rs"))
    {
        let offences = file.lines().filter_map(|(number, line)| Some((number, offence(line)?)));
        complaints.extend(offences.map(|(number, what)| format!("{}:{number}: {what}", file.path)));
    }
    tree::assert_none(rule, &complaints);
}

fn first_of(texts: &[&str], line: &str) -> Option<String> {
    texts.iter().find(|text| line.contains(**text)).map(|text| (*text).to_owned())
}

fn banned_word(line: &str) -> Option<String> {
    line.split(|c: char| !c.is_alphanumeric()).find_map(|word| {
        let banned = BANNED_WORDS.contains(&word.to_lowercase().as_str());
        let ending = BANNED_ENDINGS.iter().any(|ending| word.ends_with(ending) && word != *ending);
        let ours = NAMES_OF_OTHERS.iter().any(|name| word.ends_with(name));
        (banned || (ending && !ours)).then(|| word.to_owned())
    })
}

fn strange_host(line: &str) -> Option<String> {
    let addresses = line.split("://").skip(1).zip(line.split("://"));
    let web = addresses.filter(|(_, before)| before.ends_with("http") || before.ends_with("https"));
    let hosts = web.map(|(address, _)| address.split(|c: char| !c.is_alphanumeric() && c != '.' && c != '-'));
    hosts
        .filter_map(|mut parts| parts.next())
        .map(|host| host.trim_end_matches('.'))
        .find(|host| !host.is_empty() && !HOSTS.contains(host))
        .map(str::to_owned)
}
