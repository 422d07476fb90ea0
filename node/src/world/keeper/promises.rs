//! What is offered to others of a server that has just gone away.

use std::collections::BTreeMap;
use std::time::Duration;

use comity_protocol::ids::ServerName;
use tokio::time::Instant;

use crate::upstream::{UpstreamState, Upstreams};

/// How long a server that went away is still offered to others, so that a restart does not reach every node twice.
pub(super) const PROMISE: Duration = Duration::from_secs(10);

/// The servers that were ready once, and since when those are away that are. Bounded by the servers configured.
#[derive(Debug, Default)]
pub(super) struct Promises(BTreeMap<ServerName, Option<Instant>>);

impl Promises {
    /// Notes how the servers are at `now`.
    pub(super) fn note(&mut self, upstreams: &Upstreams, now: Instant) {
        let states = upstreams.iter().map(|(name, view)| (name, view.state == UpstreamState::Ready));
        self.note_states(states, now);
    }

    fn note_states<'a>(&mut self, states: impl Iterator<Item = (&'a ServerName, bool)>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (name, ready) in states {
            let known = before.remove(name);
            let away = if ready { Some(None) } else { known.map(|since| since.or(Some(now))) };
            if let Some(away) = away {
                self.0.insert(name.clone(), away);
            }
        }
    }

    /// Whether `server` is ready at `now`, or has been within [`PROMISE`].
    pub(super) fn hold(&self, server: &ServerName, now: Instant) -> bool {
        let in_time = |since: Instant| now.duration_since(since) < PROMISE;
        self.0.get(server).is_some_and(|away| away.is_none_or(in_time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_promised_for_a_while_from_when_it_went_away() {
        let (a, start) = ("a".parse().unwrap(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut promises = Promises::default();
        let mut note = |ready: Option<bool>, seconds| {
            promises.note_states(ready.map(|ready| (&a, ready)).into_iter(), at(seconds));
            promises.hold(&a, at(seconds))
        };
        assert!(!note(Some(false), 0), "it was never ready");
        assert!(note(Some(true), 1));
        assert!(note(Some(false), 100), "however long nobody looked");
        assert!(note(Some(false), 109));
        assert!(!note(Some(false), 110));
        assert!(note(Some(true), 111));
        assert!(note(Some(false), 112), "each time anew");
        assert!(!note(None, 113), "removed");
        assert!(!note(Some(false), 114), "added again");
    }
}
