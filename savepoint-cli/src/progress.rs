//! Progress on standard error: only on a terminal, and only of what takes more than a second.

use std::{future::Future, pin::pin, time::Duration};

use env::{Env, Monotonic};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long something may take before anything is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a picture changes.
const TICK: Duration = Duration::from_millis(100);

/// Waits for `work`, and says `what` while it takes long.
pub(crate) async fn waiting<T>(env: &Env, what: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    if let Some(done) = env.timeout(PATIENCE, &mut work).await {
        return done;
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(TICK);
    let done = work.await;
    spinner.finish_and_clear();
    done
}

/// How far something has come, in bytes.
pub(crate) struct Bar {
    env: Env,
    since: Monotonic,
    bar: ProgressBar,
    is_shown: bool,
}

impl Bar {
    /// Nothing is done yet.
    pub(crate) fn new(env: &Env, what: &'static str) -> Self {
        let style = "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {eta} left";
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { env: env.clone(), since: env.now(), bar, is_shown: false }
    }

    /// `bytes` of `total` are done.
    pub(crate) fn at(&mut self, bytes: u64, total: u64) {
        if !self.is_shown && self.env.now().since(self.since) > PATIENCE {
            self.is_shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_length(total);
        self.bar.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
