//! REST, on loopback unless told otherwise.

use env::{Env, Listener, TaskHandle};
use types::Result;

use crate::cluster::local::JobControl;

/// Serves the job's REST interface at `address`.
///
/// # Errors
/// `Unavailable` if the address is in use: says which flag to use.
pub(crate) async fn serve(env: &Env, address: &str, control: JobControl) -> Result<TaskHandle> {
    let listened = env.listen(address).await;
    let listener = listened.map_err(|error| {
        error.context("REST (choose another address with --rest HOST:PORT, or --rest off)")
    })?;
    let Listener::Tcp(listener) = listener else {
        return Err(types::Error::unavailable("REST needs a real socket"));
    };
    let app = axum::Router::new()
        .route("/metrics", axum::routing::get(move || async move { control.metrics().encode() }));
    Ok(env.spawn_task("rest", async move {
        // Ends with the process; a broken listener stops REST and not the job.
        let _ended = axum::serve(listener, app).await;
    }))
}
