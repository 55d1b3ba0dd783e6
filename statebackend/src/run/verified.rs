//! A canonical copy that is compared with what it was made of before anybody relies on it: for commands that change what a
//! snapshot holds, where one mistake would lose state for good.

use std::collections::BTreeSet;

use env::{Env, Store};
use types::{Error, Result, Run, RunIdentity, Uid};

use super::{
    RunCompression,
    canonical::StateSummary,
    driver::{RunSet, copy_canonical, summarize},
};

/// What is copied, or was, and what the copy is compared with.
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
    let expected = expected(env, copy).await?;
    if expected.states.is_empty() {
        return Ok(None);
    }
    let (run, _) = copy_canonical(env, copy.from, copy.runs, to, path, identity, compression).await?;
    compare(env, copy, &expected, to, std::slice::from_ref(&run), &run.identity.operator).await?;
    Ok(Some(run))
}

/// Reads a copy back that was there already: `runs` in `to`, of one subtask of `operator`. As [`copy_verified`] does with
/// its own.
///
/// # Errors
/// `Corrupt` if the copy is not what it should be, or a run is damaged; `Retryable` or `Unavailable` if a store fails.
pub async fn verify_copy(
    env: &Env,
    copy: &VerifiedCopy<'_>,
    to: &dyn Store,
    runs: &[Run],
    operator: &Uid,
) -> Result<()> {
    compare(env, copy, &expected(env, copy).await?, to, runs, operator).await
}

/// What the copy is to hold.
async fn expected(env: &Env, copy: &VerifiedCopy<'_>) -> Result<StateSummary> {
    let mut expected = summarize(env, copy.from, RunSet::new(copy.before, copy.runs.clocks)).await?;
    expected.states.retain(|name, _| !copy.dropped.contains(name));
    Ok(expected)
}

async fn compare(
    env: &Env,
    copy: &VerifiedCopy<'_>,
    expected: &StateSummary,
    to: &dyn Store,
    runs: &[Run],
    operator: &Uid,
) -> Result<()> {
    let found = summarize(env, to, RunSet::new(runs, copy.runs.clocks)).await?;
    let Some(state) = difference(expected, &found) else { return Ok(()) };
    let place =
        runs.first().map_or_else(|| to.url().to_owned(), |run| format!("{} in {}", run.file.path, to.url()));
    Err(Error::corrupt(format!(
        "{place}: state {state:?} of operator {operator} is not what it was copied from: check the disk, and copy again to \
         an empty directory"
    )))
}

/// The first state that is not the same in both.
fn difference<'a>(expected: &'a StateSummary, found: &'a StateSummary) -> Option<&'a str> {
    let names = expected.states.keys().chain(found.states.keys());
    let mut different = names.filter(|name| expected.states.get(*name) != found.states.get(*name));
    different.next().map(String::as_str)
}
