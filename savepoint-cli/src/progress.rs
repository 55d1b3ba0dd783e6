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
    waiting_before(env, what, work, ProgressDrawTarget::stderr).await
}

/// `place` is asked for once the work has taken long.
async fn waiting_before<T>(
    env: &Env,
    what: &str,
    work: impl Future<Output = T>,
    place: impl FnOnce() -> ProgressDrawTarget,
) -> T {
    let mut work = pin!(work);
    if let Some(done) = env.timeout(PATIENCE, &mut work).await {
        return done;
    }
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.set_draw_target(place());
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

#[cfg(test)]
mod tests {
    use env::sim::Simulation;

    use super::*;

    #[test]
    fn a_bar_is_shown_once_its_work_has_taken_a_second() {
        Simulation::new(1).run(async |env| {
            let mut bar = Bar::new(&env, "reading");
            bar.at(10, 100);
            env.sleep(PATIENCE).await;
            bar.at(50, 100);
            assert!(!bar.is_shown && bar.bar.is_hidden(), "it has not taken longer than a second");
            env.sleep(TICK).await;
            bar.at(60, 120);
            assert!(bar.is_shown);
            assert_eq!((bar.bar.position(), bar.bar.length()), (60, Some(120)));
            let shown = bar.bar.clone();
            drop(bar);
            assert!(shown.is_finished());
        });
    }

    #[test]
    fn only_what_takes_more_than_a_second_is_waited_for_aloud() {
        for (ms, aloud) in [(0, false), (900, false), (1_100, true), (60_000, true)] {
            Simulation::new(1).run(async |env| {
                let (mut asked, since) = (false, env.now());
                let work = async {
                    env.sleep(Duration::from_millis(ms)).await;
                    "done"
                };
                let place = || {
                    asked = true;
                    assert_eq!(env.now().since(since), PATIENCE, "as soon as it has taken long");
                    ProgressDrawTarget::hidden()
                };
                assert_eq!(waiting_before(&env, "working", work, place).await, "done");
                // It is neither held up nor begun again.
                assert_eq!((asked, env.now().since(since)), (aloud, Duration::from_millis(ms)));
            });
        }
    }
}
