//! A canonical copy that is compared with what it was made of before anybody relies on it: for commands that change what a
//! snapshot holds, where one mistake would lose state for good.

use std::collections::BTreeSet;

use env::{Env, Store};
use types::{Error, Result, Run, RunIdentity};

use super::{
    RunCompression,
    canonical::StateSummary,
    driver::{RunSet, copy_canonical, summarize},
};

/// What is copied, and what it is compared with.
#[derive(Clone, Copy)]
pub struct VerifiedCopy<'a> {
    /// Where the runs are.
    pub from: &'a dyn Store,
    /// What to copy.
    pub runs: RunSet<'a>,
    /// The same runs with all that they hold.
    pub before: &'a [Run],
    /// The states of which the copy shall hold nothing.
    pub dropped: &'a BTreeSet<String>,
}

/// As [`copy_canonical`], and then reads the copy back: each state that lives in the runs `before` must live in it with the
/// digest that it has there, but for the dropped ones, and no other. `None` if nothing lives; nothing is written then.
///
/// # Errors
/// As [`copy_canonical`]; `Corrupt` if the copy is not what it should be.
pub async fn copy_verified(
    env: &Env,
    copy: &VerifiedCopy<'_>,
    to: &dyn Store,
    path: &str,
    identity: RunIdentity,
    compression: RunCompression,
) -> Result<Option<Run>> {
    let VerifiedCopy { from, runs, before, dropped } = *copy;
    let with = |runs| RunSet::new(runs, copy.runs.clocks);
    let mut expected = summarize(env, from, with(before)).await?;
    expected.states.retain(|name, _| !dropped.contains(name));
    if expected.states.is_empty() {
        return Ok(None);
    }
    let (run, _) = copy_canonical(env, from, runs, to, path, identity, compression).await?;
    let found = summarize(env, to, with(std::slice::from_ref(&run))).await?;
    match difference(&expected, &found) {
        None => Ok(Some(run)),
        Some(state) => Err(Error::corrupt(format!(
            "{path} in {}: state {state:?} of operator {} is not what it was copied from: check the disk, and copy again",
            to.url(),
            run.identity.operator
        ))),
    }
}

/// The first state that is not the same in both.
fn difference<'a>(expected: &'a StateSummary, found: &'a StateSummary) -> Option<&'a str> {
    let names = expected.states.keys().chain(found.states.keys());
    let mut different = names.filter(|name| expected.states.get(*name) != found.states.get(*name));
    different.next().map(String::as_str)
}
