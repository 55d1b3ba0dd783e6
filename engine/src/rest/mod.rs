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
//! GET  /metrics                  numbers for Prometheus
//! ```
//!
//! A POST is answered when the thing is done. Bodies are `types::rest`; whatever goes wrong is answered with
//! [`ErrorAnswer`](types::rest::ErrorAnswer) and a fitting status. Reads never wait for the job.

mod error;
mod job;
mod metrics;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    routing::{get, post},
};
use env::{Env, Listener, TaskHandle};
use tokio::sync::Notify;
use types::{Error, Result};

use self::error::Refusal;
use crate::cluster::local::JobControl;

/// The greatest length of a request's body, in bytes: directories are the longest that is sent.
const BODY_LIMIT: usize = 64 << 10;

/// How long answers that are on their way may take once the job has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// A running server.
pub(crate) struct RestServer {
    address: String,
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
    /// Serves the job's REST interface at `address`.
    ///
    /// # Errors
    /// `Unavailable` if the address is in use: says which flag to use.
    pub(crate) async fn start(env: &Env, address: &str, control: JobControl) -> Result<Self> {
        let listened = env.listen(address).await;
        let listener = listened.map_err(|error| {
            error.context("REST (choose another address with --rest HOST:PORT, or --rest off)")
        })?;
        let address = listener.address().unwrap_or_else(|| address.to_owned());
        let Listener::Tcp(listener) = listener else {
            return Err(Error::unavailable("REST needs a real socket"));
        };
        let app = router(Served { env: env.clone(), control });
        let end = Arc::new(Notify::new());
        let ended = Arc::clone(&end);
        let task = env.spawn_task("rest", async move {
            let served =
                axum::serve(listener, app).with_graceful_shutdown(async move { ended.notified().await });
            // A broken listener stops REST and not the job.
            let _ended = served.await;
        });
        Ok(Self { address, end, task })
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

fn router(served: Served) -> Router {
    Router::new()
        .route("/jobs", get(job::list))
        .route("/jobs/{name}", get(job::details))
        .route("/jobs/{name}/plan", get(job::plan))
        .route("/jobs/{name}/checkpoint", post(job::checkpoint))
        .route("/jobs/{name}/savepoint", post(job::savepoint))
        .route("/jobs/{name}/stop", post(job::stop))
        .route("/jobs/{name}/cancel", post(job::cancel))
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
