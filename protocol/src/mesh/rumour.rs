//! Rumours: how the whole mesh learns within a second or so that a node has fallen silent, and how one that lives answers.
//!
//! Whoever doubts a neighbour tells its other neighbours, each of which passes on what is news to it. A rumour names the
//! newest advert of the node that is known, so it is news once only, and the node answers it as SWIM's members do (Das,
//! Gupta, Motivala, DSN 2002): with a newer one. A rumour is nobody's signed word. So it ranks a node last and removes
//! nothing, it ends by itself, whoever has the node on a link of its own does not believe it, and how many are passed on
//! is bounded.

use std::time::Duration;

use crate::ids::NodeId;
use crate::time::{Mono, Now};

use super::link::Doubt;
use super::wire::{LinkMessage, RUMOURS_MAX, Rumour};
use super::{ConnectionId, Mesh};

/// How long a rumour is believed that nobody renews.
pub const RUMOUR_LIFE: Duration = Duration::from_secs(30);

/// Most rumours that a node passes on or begins in [`RUMOUR_WINDOW`]. Beyond them it keeps them to itself: others find
/// out when they call, or hear it from somebody else.
pub const RUMOURS_PER_WINDOW_MAX: u32 = 512;

/// The window in which rumours are counted.
pub const RUMOUR_WINDOW: Duration = Duration::from_secs(10);

/// The least time between two adverts with which a node answers rumours of its death.
pub const ANSWER_GAP: Duration = Duration::from_secs(5);

/// What a node remembers of rumours.
#[derive(Clone, Debug, Default)]
pub(super) struct Rumours {
    window: (Mono, u32),
    answered: Option<Mono>,
}

impl Rumours {
    fn admit(&mut self, now: Mono) -> bool {
        if now.since(self.window.0) >= RUMOUR_WINDOW {
            self.window = (now, 0);
        }
        self.window.1 += 1;
        self.window.1 <= RUMOURS_PER_WINDOW_MAX
    }

    fn may_answer(&mut self, now: Mono) -> bool {
        let free = self.answered.is_none_or(|last| now.since(last) >= ANSWER_GAP);
        if free {
            self.answered = Some(now);
        }
        free
    }
}

impl Mesh {
    /// Asks neighbours again that have not answered in time, and spreads word of those who do not answer then either.
    pub(super) fn raise_doubts(&mut self, now: Now) {
        let doubted: Vec<NodeId> = self
            .links
            .values_mut()
            .filter_map(|link| (link.take_doubt(now.mono) == Some(Doubt::Suspect)).then_some(link.peer))
            .collect();
        for peer in doubted {
            if self.mark_suspected(&peer) {
                self.begin_rumour(&peer, now);
            }
        }
    }

    /// Tells every neighbour that a node does not answer.
    pub(super) fn begin_rumour(&mut self, node: &NodeId, now: Now) {
        let Some(entry) = self.directory.get(node) else { return };
        let leaving = entry.advert().leaving;
        let rumour = Rumour { node: *node, sequence: entry.advert().sequence() };
        if !leaving && self.rumours.admit(now.mono) {
            self.spread_rumours(None, &[rumour]);
        }
    }

    /// A peer that was held dead is linked again: it is told, so that it can tell everybody else.
    pub(super) fn tell_of_rumour(&mut self, connection: ConnectionId, node: &NodeId) {
        let Some(entry) = self.directory.get(node) else { return };
        let rumour = Rumour { node: *node, sequence: entry.advert().sequence() };
        self.send(connection, &LinkMessage::Rumours(vec![rumour]));
    }

    pub(super) fn on_rumours(&mut self, connection: ConnectionId, rumours: &[Rumour], now: Now) {
        let mut news = Vec::new();
        for rumour in rumours.iter().take(RUMOURS_MAX) {
            if rumour.node == self.node() {
                self.answer_rumour(rumour, now);
            } else if self.is_news(rumour) && self.rumours.admit(now.mono) {
                if self.answers(&rumour.node) {
                    self.pass_to_itself(rumour);
                } else if self.directory.suspect_by_rumour(&rumour.node, now.mono + RUMOUR_LIFE) {
                    self.changed = true;
                    news.push(*rumour);
                }
            }
        }
        if !news.is_empty() {
            self.spread_rumours(Some(connection), &news);
        }
    }

    /// Whether nothing newer of the node is known than what the rumour knew, and nobody here believes it yet.
    fn is_news(&self, rumour: &Rumour) -> bool {
        let entry = self.directory.get(&rumour.node);
        entry.is_some_and(|entry| !entry.suspected && entry.advert().sequence() <= rumour.sequence)
    }

    fn answer_rumour(&mut self, rumour: &Rumour, now: Now) {
        let ours = self.directory.get(&rumour.node).map(|entry| entry.advert().sequence());
        if ours.is_some_and(|ours| ours <= rumour.sequence) && self.rumours.may_answer(now.mono) {
            self.own.touch(now.mono);
        }
    }

    /// Whoever has the node on a link tells it alone, so that it can answer.
    fn pass_to_itself(&mut self, rumour: &Rumour) {
        let theirs = self.links.values().find(|link| link.is_up() && link.peer == rumour.node);
        if let Some(connection) = theirs.map(|link| link.connection) {
            self.send(connection, &LinkMessage::Rumours(vec![*rumour]));
        }
    }

    fn spread_rumours(&mut self, except: Option<ConnectionId>, rumours: &[Rumour]) {
        let others = self
            .links
            .values()
            .filter(|link| link.is_neighbour() && !link.is_doubted() && Some(link.connection) != except);
        let others: Vec<_> = others.map(|link| link.connection).collect();
        for connection in others {
            self.send(connection, &LinkMessage::Rumours(rumours.to_vec()));
        }
    }
}
