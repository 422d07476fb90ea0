//! Who is let in, and how links end. The order of the messages is explained in [`super::link`].

use crate::ids::NodeId;
use crate::time::Now;
use crate::trust::{Membership, MembershipError, RootChain, RootRefusal, Verified};

use super::link::{Link, Phase};
use super::wire::{Hello, LinkMessage, Refusal, Want, Welcome};
use super::{ConnectionId, Effect, Mesh, MeshEvent, ahead_s};

/// By how many seconds clocks may differ before the operator is told.
const CLOCK_WARNING_S: i64 = 60;

impl Mesh {
    pub(super) fn say_hello(&mut self, connection: ConnectionId, now: Now) {
        let identity = &self.own.identity;
        let hello = Hello {
            mesh: self.anchors.mesh().clone(),
            membership: identity.membership.bytes().to_vec().into(),
            roots: identity.roots.encode().into(),
            wall: now.wall,
            version: identity.version.clone(),
        };
        self.send(connection, &LinkMessage::Hello(hello));
    }

    pub(super) fn on_hello(&mut self, connection: ConnectionId, hello: Hello, now: Now) {
        let Some(link) = self.links.get(&connection) else { return };
        let (peer, phase, dialled) = (link.peer, link.phase, link.dialled);
        let membership = match self.check_hello(peer, &hello, now) {
            Ok(membership) => membership,
            Err(refusal) => return self.refuse(connection, refusal.code, &refusal.detail, now),
        };
        self.warn_about_clock(peer, &hello, now);
        let Some(link) = self.links.get_mut(&connection) else { return };
        link.member_until = membership.expires;
        link.roles = membership.roles.clone();
        link.org = Some(membership.org.clone());
        if phase != Phase::Hello {
            // A peer on a link that is up shows its renewed membership.
            return;
        }
        link.phase = Phase::Welcome;
        self.effects.push_back(Effect::Accept(connection));
        if dialled {
            self.go_up(connection, now);
        } else {
            self.say_hello(connection, now);
        }
    }

    /// The one place where a peer is let in or not.
    fn check_hello(
        &mut self,
        peer: NodeId,
        hello: &Hello,
        now: Now,
    ) -> Result<Verified<Membership>, Refused> {
        if hello.mesh != *self.anchors.mesh() {
            let detail =
                format!("it belongs to the mesh {}, and this is {}", hello.mesh, self.anchors.mesh());
            return Err(Refused { code: "other_mesh", detail });
        }
        if peer == self.node() {
            return Err(Refused { code: "own_key", detail: "it uses this node's own key".into() });
        }
        self.learn_roots(&hello.roots, now);
        let membership = self.anchors.verify_membership(&hello.membership, now.wall)?;
        if membership.node != peer {
            return Err(MembershipError::WrongNode { claimed: membership.node, actual: peer }.into());
        }
        Ok(membership)
    }

    fn warn_about_clock(&mut self, peer: NodeId, hello: &Hello, now: Now) {
        let ahead_s = ahead_s(hello.wall, now.wall);
        if ahead_s.abs() > CLOCK_WARNING_S {
            self.event(MeshEvent::ClockDiffers { peer, ahead_s });
        }
    }

    pub(super) fn on_welcome(&mut self, connection: ConnectionId, welcome: Welcome, now: Now) {
        match self.links.get(&connection).map(|link| (link.phase, link.dialled)) {
            Some((Phase::Welcome, false)) => {
                self.go_up(connection, now);
                self.take_welcome(connection, welcome, now);
            }
            Some((Phase::Up, _)) => self.take_welcome(connection, welcome, now),
            _ => self.refuse(connection, "not_admitted", "it said welcome before hello", now),
        }
    }

    fn go_up(&mut self, connection: ConnectionId, now: Now) {
        let Some(link) = self.links.get_mut(&connection) else { return };
        let (peer, roles, Some(org)) = (link.peer, link.roles.clone(), link.org.clone()) else { return };
        link.go_up(now.mono);
        let first = self.links.values().filter(|link| link.is_up() && link.peer == peer).count() == 1;
        self.effects.push_back(Effect::Admit { connection, peer, org: org.clone(), roles });
        let ours = self.overlay.want(Want::No, self.neighbours_except(peer));
        if let Some(link) = self.links.get_mut(&connection) {
            link.set_wants(ours, Want::No, now.mono);
        }
        self.send_welcome(connection);
        self.overlay.admitted(peer);
        if self.directory.suspects().contains(&peer) {
            self.mark_alive(&peer);
            self.tell_of_rumour(connection, &peer);
        }
        if first {
            self.event(MeshEvent::PeerUp { peer, org });
        }
        self.send_limited_adverts(connection);
        self.open_exchange(connection);
    }

    fn send_welcome(&mut self, connection: ConnectionId) {
        if let Some(welcome) = self.welcome_for(connection) {
            self.send(connection, &LinkMessage::Welcome(welcome));
        }
    }

    /// Takes a chain of roots for a pinned org, wherever it came from: only its pin makes it true.
    pub(super) fn learn_roots(&mut self, bytes: &[u8], now: Now) {
        let Ok(chain) = RootChain::decode(bytes) else { return };
        match self.anchors.learn(chain.clone()) {
            Ok(true) => self.roots_learned(&chain, now),
            Ok(false)
            | Err(RootRefusal::Unpinned(_) | RootRefusal::Root(_) | RootRefusal::Mismatch { .. }) => {}
        }
    }

    /// Refuses a peer: tells it why, tells the operator, and closes.
    pub(super) fn refuse(&mut self, connection: ConnectionId, code: &str, detail: &str, now: Now) {
        let Some(link) = self.links.get(&connection) else { return };
        let peer = link.peer;
        let refusal = Refusal { code: code.to_owned(), detail: detail.to_owned() };
        self.send(connection, &LinkMessage::Refuse(refusal));
        self.event(MeshEvent::Refused {
            peer,
            by_peer: false,
            code: code.to_owned(),
            detail: detail.to_owned(),
        });
        self.overlay.avoid(peer, now.mono);
        self.close(connection, detail, false);
    }

    pub(super) fn on_refused(&mut self, connection: ConnectionId, refusal: Refusal, now: Now) {
        let Some(peer) = self.links.get(&connection).map(|link| link.peer) else { return };
        let (code, detail) = (shown(&refusal.code, 64), shown(&refusal.detail, 512));
        self.overlay.avoid(peer, now.mono);
        self.close(connection, &format!("the peer refused us: {detail}"), false);
        self.event(MeshEvent::Refused { peer, by_peer: true, code, detail });
    }

    /// Closes in peace: the peer is told, and calls in flight are let finish.
    pub(super) fn part(&mut self, connection: ConnectionId, detail: &str) {
        let bye = Refusal { code: "bye".into(), detail: detail.to_owned() };
        self.send(connection, &LinkMessage::Bye(bye));
        self.close(connection, detail, true);
    }

    pub(super) fn close(&mut self, connection: ConnectionId, reason: &str, when_idle: bool) {
        let Some(link) = self.links.get_mut(&connection).filter(|link| link.phase != Phase::Closed) else {
            return;
        };
        let was = link.clone();
        link.phase = Phase::Closed;
        let reason = reason.to_owned();
        self.effects.push_back(Effect::Close { connection, reason: reason.clone(), when_idle });
        self.link_gone(&was, &reason);
    }

    /// A link that may have been up is so no more.
    pub(super) fn link_gone(&mut self, link: &Link, reason: &str) {
        let others = self.links.values().any(|other| other.peer == link.peer && other.is_up());
        if link.is_up() && !others {
            self.event(MeshEvent::PeerDown { peer: link.peer, reason: reason.to_owned() });
        }
    }
}

/// Why a hello was not accepted.
struct Refused {
    code: &'static str,
    detail: String,
}

impl From<MembershipError> for Refused {
    fn from(error: MembershipError) -> Self {
        let source =
            std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
        Self { code: error.code(), detail: format!("{error}{source}") }
    }
}

/// A peer's text made safe for logs: bounded and without control characters.
fn shown(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}
