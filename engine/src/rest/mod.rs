//! REST, on loopback unless told otherwise: what a running job shows and takes. Started by `cluster::local`, used by
//! the command line, by scripts and by Prometheus.
//!
//! ```text
//! GET  /jobs                     the jobs of this process: one
//! GET  /jobs/NAME                its state, tasks, checkpoints and failures
//! GET  /jobs/NAME/plan           its plan
//! POST /jobs/NAME/checkpoint     take a checkpoint
//! POST /jobs/NAME/savepoint      {"dir": "..."}: copy a checkpoint into a directory
//! POST /jobs/NAME/stop           {"drain": false, "savepoint": "..."}: end with a last checkpoint
//! POST /jobs/NAME/cancel         end now
//! POST /jobs/NAME/gc             delete what nothing needs any more, and is there all the same
//! GET  /metrics                  numbers for Prometheus
//! ```
//!
//! A POST is answered when the thing is done. Bodies are `types::rest`; whatever goes wrong is answered with
//! [`ErrorAnswer`](types::rest::ErrorAnswer) and a fitting status. Reads never wait for the job.

mod error;
mod job;
mod metrics;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    routing::{get, post},
};
use env::{Env, Listener, TaskHandle};
use tokio::{net::TcpListener, sync::Notify};
use types::{Error, ErrorKind, Result};

use self::error::Refusal;
use crate::cluster::local::JobControl;

/// The greatest length of a request's body, in bytes: directories are the longest that is sent.
const BODY_LIMIT: usize = 64 << 10;

/// How long answers that are on their way may take once the job has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Between two looks at an address that is in use.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A running server.
pub(crate) struct RestServer {
    address: String,
    is_listening: bool,
    end: Arc<Notify>,
    task: TaskHandle,
}

/// What the handlers work with.
#[derive(Clone)]
struct Served {
    env: Env,
    control: JobControl,
}

impl RestServer {
    /// Serves the job's REST interface at `address`. If that is in use and the server `may_wait`, once it is free.
    ///
    /// # Errors
    /// `Unavailable` if the address is in use: says which flag to use.
    pub(crate) async fn start(env: &Env, address: &str, control: JobControl, may_wait: bool) -> Result<Self> {
        let name = control.plan().job_name.clone();
        let listener = match env.listen(address).await {
            Ok(Listener::Tcp(listener)) => Some(listener),
            Ok(Listener::Simulated(_)) => return Err(no_socket()),
            Err(error) if may_wait && is_in_use(&error) => {
                env.warn(&format!("job {name}: REST waits until {address} is free"));
                None
            }
            Err(error) if is_elsewhere(&error) => {
                let advice = "REST (give an address of this machine with --rest HOST:PORT, or --rest off)";
                return Err(error.with_kind(ErrorKind::InvalidJob).context(advice));
            }
            Err(error) => {
                return Err(
                    error.context("REST (choose another address with --rest HOST:PORT, or --rest off)")
                );
            }
        };
        let bound = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let is_listening = listener.is_some();
        let real = bound.map_or_else(|| address.to_owned(), |bound| bound.to_string());
        let app = router(Served { env: env.clone(), control });
        let end = Arc::new(Notify::new());
        let (world, asked, ended) = (env.clone(), address.to_owned(), Arc::clone(&end));
        let task = env.spawn_task("rest", async move {
            let listener = match listener {
                Some(listener) => listener,
                None => {
                    let freed = tokio::select! {
                        biased;
                        () = ended.notified() => return,
                        freed = once_free(&world, &asked) => freed,
                    };
                    match freed {
                        Ok(freed) => {
                            announce(&world, &name, &freed);
                            freed
                        }
                        Err(error) => {
                            world.warn(&format!("job {name}: goes on without REST: {error}"));
                            return;
                        }
                    }
                }
            };
            let served =
                axum::serve(listener, app).with_graceful_shutdown(async move { ended.notified().await });
            // A broken listener stops REST and not the job.
            let _ended = served.await;
        });
        Ok(Self { address: real, is_listening, end, task })
    }

    /// What to tell people once the job goes on; none where that is told when the address is free.
    pub(crate) fn announcement(&self) -> Option<String> {
        self.is_listening.then(|| format!("REST at http://{}", self.address))
    }

    /// Where it listens, the real port where 0 was asked for.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Takes no further requests, lets the answers on their way reach their clients, and ends.
    pub(crate) async fn end(self, env: &Env) {
        self.end.notify_one();
        // A client that does not read its answer does not hold the process.
        let _ended = env.timeout(LAST_ANSWERS, self.task.join()).await;
    }
}

/// Listens at an address as soon as nobody else does.
///
/// # Errors
/// `Unavailable` if the address cannot be used for another reason.
async fn once_free(env: &Env, address: &str) -> Result<TcpListener> {
    loop {
        match env.listen(address).await {
            Ok(Listener::Tcp(listener)) => return Ok(listener),
            Ok(Listener::Simulated(_)) => return Err(no_socket()),
            Err(error) if is_in_use(&error) => env.sleep(LOOK_AGAIN).await,
            Err(error) => return Err(error),
        }
    }
}

fn no_socket() -> Error {
    Error::unavailable("REST needs a real socket")
}

fn announce(env: &Env, job: &str, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        env.warn(&format!("job {job}: REST at http://{address}"));
    }
}

fn is_in_use(error: &Error) -> bool {
    is(error, io::ErrorKind::AddrInUse)
}

/// Whether the address is none of this machine: that does not pass.
fn is_elsewhere(error: &Error) -> bool {
    is(error, io::ErrorKind::AddrNotAvailable)
}

fn is(error: &Error, kind: io::ErrorKind) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == kind)
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/jobs", get(job::list))
        .route("/jobs/{name}", get(job::details))
        .route("/jobs/{name}/plan", get(job::plan))
        .route("/jobs/{name}/checkpoint", post(job::checkpoint))
        .route("/jobs/{name}/savepoint", post(job::savepoint))
        .route("/jobs/{name}/stop", post(job::stop))
        .route("/jobs/{name}/cancel", post(job::cancel))
        .route("/jobs/{name}/gc", post(job::gc))
        .route("/metrics", get(metrics::page))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(served)
}

async fn unknown_path(uri: Uri) -> Refusal {
    Refusal::not_found(format!(
        "there is nothing at {}: GET /jobs lists what there is, GET /metrics the numbers",
        uri.path()
    ))
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    Refusal::wrong_method(format!(
        "{method} is not what {} takes: GET reads, POST makes the job do something",
        uri.path()
    ))
}
