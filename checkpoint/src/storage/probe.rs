//! The start-up probe: is a store fit to hold checkpoints? It must take writes, show them at once, and create an object
//! only where there is none. Called before the first record of an attempt; leaves nothing behind.

use bytes::Bytes;
use env::{Created, Env, Store};
use rand::Rng;
use types::{Error, ErrorKind, Result};

use super::{paths, retry::Retry};

/// Tries what safety rests on. In errors the store is called `what`.
///
/// # Errors
/// `Unavailable` naming the store and the remedy; `Retryable` if it does not answer.
pub async fn probe(env: &Env, store: &dyn Store, what: &str) -> Result<()> {
    let mut random = env.rng(&format!("store probe {}", env.process_id()));
    let path = format!("{}{:016x}{:016x}", paths::PROBE, random.next_u64(), random.next_u64());
    let result = tried(env, store, &path).await;
    let removed = Retry::STORE.run(env, "delete the probe", || store.delete(&path)).await;
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

fn unfit(store: &dyn Store, what: &str) -> Error {
    Error::unavailable(format!(
        "{} {what}: it cannot hold checkpoints safely, use another store",
        store.url()
    ))
}
