//! The names of settings: in the environment, and what was meant by a name that is none.

use super::settings::SETTINGS;

/// What the name of every environment variable begins with.
pub(super) const PREFIX: &str = "TIDEGATE_";

/// Variables that are no settings, and the beginnings of such: fault points, seeds and tests read them.
const OTHERS: [&str; 5] = ["FAULT", "SEED", "TEST_", "CONFORMANCE_", "BACKPRESSURE_"];

/// The environment variable of a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_uppercase().replace(['.', '-'], "_"))
}

/// What a variable that begins with [`PREFIX`] is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// A setting's, or one of those that are none.
    Known,
    /// Almost that of a setting.
    Mistyped(String),
    /// Nothing that anybody reads.
    Unknown,
}

/// What the variable `name` is.
pub(super) fn judge(name: &str) -> Variable {
    let bare = name.strip_prefix(PREFIX).unwrap_or(name);
    if SETTINGS.iter().any(|setting| variable(setting.name) == name)
        || OTHERS.iter().any(|other| bare.starts_with(other))
    {
        return Variable::Known;
    }
    let meant = closest(&bare.to_uppercase(), |setting| variable(setting)[PREFIX.len()..].to_owned());
    meant.map_or(Variable::Unknown, |meant| Variable::Mistyped(format!("{PREFIX}{meant}")))
}

/// What may stand in the place of an unknown setting: the name that is almost the same, or where all are.
pub(super) fn advice(name: &str) -> String {
    closest(name, str::to_owned)
        .map_or_else(|| "--help lists those there are".to_owned(), |near| format!("did you mean {near:?}?"))
}

/// The known name, as it is `written`, that is reached from `name` with the fewest changed letters, if those are few.
fn closest(name: &str, written: impl Fn(&str) -> String) -> Option<String> {
    let nearest = SETTINGS.iter().map(|it| written(it.name)).min_by_key(|it| changes(name, it))?;
    (changes(name, &nearest) <= nearest.len() / 3).then_some(nearest)
}

/// How many letters must be put in, taken out or replaced to make `to` of `from`.
fn changes(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (at, other) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_told_from_those_of_others() {
        let mistyped = |name: &str, meant: &str| {
            assert_eq!(judge(name), Variable::Mistyped(meant.to_owned()), "{name}");
        };
        mistyped("TIDEGATE_PARALELISM", "TIDEGATE_PARALLELISM");
        mistyped("TIDEGATE_CHECKPOINT_INTERVAL", "TIDEGATE_CHECKPOINTS_INTERVAL");
        mistyped("TIDEGATE_checkpoints_url", "TIDEGATE_CHECKPOINTS_URL");
        for known in ["TIDEGATE_REST", "TIDEGATE_ALLOW_MOVED", "TIDEGATE_FAULT_LOG", "TIDEGATE_SEED"] {
            assert_eq!(judge(known), Variable::Known, "{known}");
        }
        assert_eq!(judge("TIDEGATE_GREETING_OF_THE_DAY"), Variable::Unknown);
    }
}
