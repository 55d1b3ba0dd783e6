//! The start-up probe: is a store fit to hold checkpoints? It must take writes, show them at once, and create an object
//! only where there is none, also when several try at the same moment. Called before the first record of an attempt;
//! leaves nothing behind.

use bytes::Bytes;
use env::{Created, Env, Store};
use futures::future::try_join_all;
use rand::Rng;
use types::{Error, ErrorKind, Result};

use super::{paths, retry::Retry};

/// How many objects are raced for. A store that looks first and writes later lets two win nearly every time.
const RACES: usize = 4;
/// How many rivals race for each.
const RIVALS: usize = 8;

/// Tries what safety rests on. In errors the store is called `what`.
///
/// # Errors
/// `Unavailable` naming the store and the remedy; `Retryable` if it does not answer.
pub async fn probe(env: &Env, store: &dyn Store, what: &str) -> Result<()> {
    let mut random = env.rng(&format!("store probe {}", env.process_id()));
    let mut path = || format!("{}{:016x}{:016x}", paths::PROBE, random.next_u64(), random.next_u64());
    let mut used = vec![path()];
    let mut result = tried(env, store, &used[0]).await;
    // A directory's creates are the operating system's own.
    let races = if store.local_dir().is_none() { RACES } else { 0 };
    for _ in 0..races {
        if result.is_ok() {
            let path = path();
            used.push(path.clone());
            result = raced_for(env, store, &path).await;
        }
    }
    let mut removed = Ok(());
    for path in &used {
        removed = removed.and(Retry::STORE.run(env, "delete the probe", || store.delete(path)).await);
    }
    result.and(removed).map_err(|error| match error.kind() {
        ErrorKind::Retryable | ErrorKind::Unavailable => error.context(format!(
            "{what} {} cannot be used; free some space, make it writable or choose another",
            store.url()
        )),
        _ => error,
    })
}

async fn tried(env: &Env, store: &dyn Store, path: &str) -> Result<()> {
    let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
    Retry::STORE.create_own(env, store, path, &first).await?;
    let again = Retry::STORE.run(env, "probe the store", || store.create(path, vec![second.clone()])).await?;
    if again == Created::New {
        return Err(unfit(store, "creates an object that exists already (no conditional create)"));
    }
    match Retry::STORE.run(env, "probe the store", || store.get(path)).await? {
        Some(found) if found == first => Ok(()),
        Some(_) => Err(unfit(store, "replaced an object by a create that it answered with \"exists\"")),
        None => Err(unfit(store, "does not show an object that was written (no read-after-write)")),
    }
}

/// Several create one object at once.
async fn raced_for(env: &Env, store: &dyn Store, path: &str) -> Result<()> {
    let rival = async |number: usize| {
        let bytes = Bytes::from(number.to_string());
        let created =
            Retry::STORE.run(env, "probe the store", || store.create(path, vec![bytes.clone()])).await?;
        Ok::<_, Error>((created == Created::New).then_some(bytes))
    };
    let winners: Vec<_> = try_join_all((0..RIVALS).map(rival)).await?.into_iter().flatten().collect();
    let found = Retry::STORE.run(env, "probe the store", || store.get(path)).await?;
    match (&*winners, found) {
        (_, None) => Err(unfit(store, "does not show an object that was written (no read-after-write)")),
        // The winner's answer was lost.
        ([], Some(_)) => Ok(()),
        ([winner], Some(found)) if *winner == found => Ok(()),
        ([_], Some(_)) => {
            Err(unfit(store, "holds another object than the one whose create it answered with \"created\""))
        }
        ([_, _, ..], _) => Err(unfit(store, "lets several win who create one object at the same moment")),
    }
}

fn unfit(store: &dyn Store, what: &str) -> Error {
    Error::unavailable(format!(
        "{} {what}: it cannot hold checkpoints safely, use another store",
        store.url()
    ))
}
