//! No restart: the first failure ends the job.

use super::Verdict;

pub(super) fn on_failure() -> Verdict {
    Verdict::GiveUp("the restart strategy is none".to_owned())
}
