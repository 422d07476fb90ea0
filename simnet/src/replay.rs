//! The line that runs a run again: where its scenario is, its hash, the seed, and the commit that it ran on.

use core::fmt;
use core::str::FromStr;

use crate::run::Source;

/// What is needed to run a run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The name of a built-in scenario, or a file's path.
    pub place: String,
    /// The hash of the scenario's text.
    pub hash: String,
    /// The seed.
    pub seed: u64,
    /// The commit of the code.
    pub commit: String,
}

impl Replay {
    /// The line of a run.
    pub fn of(source: &Source, seed: u64, commit: &str) -> Self {
        Self { place: source.place.clone(), hash: source.hash.clone(), seed, commit: commit.to_owned() }
    }
}

/// Why a line is no replay line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no replay line: expected seed=N commit=HASH scenario=HASH PLACE")]
pub struct ReplayError(pub String);

/// The place comes last, because a path may have spaces.
impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={} commit={} scenario={} {}", self.seed, self.commit, self.hash, self.place)
    }
}

impl FromStr for Replay {
    type Err = ReplayError;

    fn from_str(text: &str) -> Result<Self, ReplayError> {
        let refuse = || ReplayError(text.chars().take(200).collect());
        let mut parts = text.trim().splitn(4, ' ');
        let mut value = |key: &str| {
            let part =
                parts.next().and_then(|part| part.strip_prefix(key)).and_then(|rest| rest.strip_prefix('='));
            part.filter(|value| !value.is_empty()).map(str::to_owned).ok_or_else(refuse)
        };
        let (seed, commit, hash) = (value("seed")?, value("commit")?, value("scenario")?);
        let place = parts.next().filter(|place| !place.is_empty()).ok_or_else(refuse)?.to_owned();
        Ok(Self { place, hash, seed: seed.parse().map_err(|_| refuse())?, commit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let replay = Replay {
            place: "my scenarios/edge 1.toml".into(),
            hash: "0123456789ab".into(),
            seed: u64::MAX,
            commit: "abc".into(),
        };
        assert_eq!(replay.to_string().parse(), Ok(replay));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in [
            "",
            "seed=1",
            "seed=x commit=a scenario=b c",
            "seed=1 commit=a scenario=b",
            "commit=a seed=1 scenario=b c",
        ] {
            assert!(text.parse::<Replay>().is_err(), "{text}");
        }
    }
}
