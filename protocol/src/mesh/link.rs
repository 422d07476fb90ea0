//! One connection's link: admission, then liveness.
//!
//! The dialler says hello, the listener checks it, lets the dialler's streams in and says hello itself; the dialler
//! checks that, opens everything and says welcome; on that the listener opens everything too. Either may refuse instead.
//! In this order neither side opens a stream that the other would still turn away.
//!
//! Afterwards silence is what counts: nothing in libp2p closes a connection whose pings fail, so this does.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{NodeId, OrgName, RootHash};
use crate::time::{Mono, Wall};
use crate::trust::RoleSet;

use super::ConnectionId;
use super::wire::Want;

/// How long a peer may take from connecting to being admitted.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often neighbours ping each other.
pub const NEIGHBOUR_PING: Duration = Duration::from_secs(1);

/// How often other linked peers do.
pub const IDLE_PING: Duration = Duration::from_secs(5);

/// How many intervals of silence end a connection.
const SILENT_PINGS: u32 = 3;

/// How long a link that nobody needs as a neighbour's is kept; the side that listened waits twice as long, so that the
/// dialler, which knows best why it came, usually closes it.
pub const SPARE_LINK_LIFE: Duration = Duration::from_secs(20);

/// The least time between two exchanges of anti-entropy that one side begins on one link.
pub const RECONCILE_GAP: Duration = Duration::from_secs(2);

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Waiting for the peer's hello.
    Hello,
    /// The peer has been checked; waiting for its welcome.
    Welcome,
    /// Both have admitted each other.
    Up,
    /// Closing; what still arrives is ignored.
    Closed,
}

/// One connection's link.
#[derive(Clone, Debug)]
pub struct Link {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer, proved by the connection.
    pub peer: NodeId,
    /// Whether we dialled.
    pub dialled: bool,
    /// How far it has come.
    pub phase: Phase,
    /// The peer's org, once its membership has been checked.
    pub org: Option<OrgName>,
    /// What the peer's org lets it do, by its membership.
    pub roles: RoleSet,
    /// When the peer's membership ends.
    pub member_until: Wall,
    /// Whether we want the peer as a neighbour.
    pub ours: Want,
    /// Whether it wants us.
    pub theirs: Want,
    /// The orgs that both have pinned, ascending.
    pub shared: Vec<RootHash>,
    /// The orgs that the peer has pinned.
    pub their_pins: BTreeSet<RootHash>,
    /// The last round trip of a ping.
    pub rtt: Option<Duration>,
    /// When an exchange of anti-entropy may begin again.
    pub next_reconcile: Mono,
    opened: Mono,
    last_heard: Mono,
    spare_since: Mono,
    last_used: Mono,
    next_ping: Mono,
    ping: Option<(u32, Mono)>,
    pings: u32,
}

/// Why a link ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// Not admitted in time.
    Admission,
    /// Silent for too long.
    Silence,
    /// The peer's membership has ended.
    Membership,
    /// Neither side needs it.
    Spare,
}

impl Link {
    /// The link of a connection that has just been made.
    pub fn new(connection: ConnectionId, peer: NodeId, dialled: bool, now: Mono) -> Self {
        Self {
            connection,
            peer,
            dialled,
            phase: Phase::Hello,
            org: None,
            roles: RoleSet::default(),
            member_until: Wall::default(),
            ours: Want::No,
            theirs: Want::No,
            shared: Vec::new(),
            their_pins: BTreeSet::new(),
            rtt: None,
            next_reconcile: now,
            opened: now,
            last_heard: now,
            spare_since: now,
            last_used: now,
            next_ping: now,
            ping: None,
            pings: 0,
        }
    }

    /// Whether both have admitted each other.
    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether each wants the other as a neighbour.
    pub fn is_neighbour(&self) -> bool {
        self.is_up() && self.ours != Want::No && self.theirs != Want::No
    }

    /// Both have admitted each other: begins pinging at once, so that directories are compared at once.
    pub fn go_up(&mut self, now: Mono) {
        self.phase = Phase::Up;
        self.next_ping = now;
        self.spare_since = now;
    }

    /// Something came from the peer.
    pub fn heard(&mut self, now: Mono) {
        self.last_heard = now;
    }

    /// A call or a pull ran over the connection just now, so that it is not spare yet.
    pub fn used(&mut self, now: Mono) {
        self.last_used = now;
    }

    /// One side has changed its wish; a link that stops being a neighbour's becomes spare now.
    pub fn set_wants(&mut self, ours: Want, theirs: Want, now: Mono) {
        let before = self.is_neighbour();
        (self.ours, self.theirs) = (ours, theirs);
        if before != self.is_neighbour() {
            self.spare_since = now;
            self.next_ping = now;
        }
    }

    /// The nonce of a ping to send now, if one is due.
    pub fn take_ping(&mut self, now: Mono) -> Option<u32> {
        if !self.is_up() || now < self.next_ping {
            return None;
        }
        self.pings = self.pings.wrapping_add(1);
        self.ping = Some((self.pings, now));
        self.next_ping = now + self.interval();
        Some(self.pings)
    }

    /// The answer to a ping came.
    pub fn pong(&mut self, nonce: u32, now: Mono) {
        if let Some((_, sent)) = self.ping.take_if(|(sent_nonce, _)| *sent_nonce == nonce) {
            self.rtt = Some(now.since(sent));
        }
    }

    fn interval(&self) -> Duration {
        if self.is_neighbour() { NEIGHBOUR_PING } else { IDLE_PING }
    }

    fn silence_end(&self) -> Mono {
        // Just after a link becomes a neighbour's, what was heard under the longer interval still counts.
        self.last_heard.max(self.spare_since) + self.interval() * SILENT_PINGS
    }

    fn spare_end(&self) -> Option<Mono> {
        let life = if self.dialled { SPARE_LINK_LIFE } else { SPARE_LINK_LIFE * 2 };
        (!self.is_neighbour()).then(|| self.spare_since.max(self.last_used) + life)
    }

    /// Why the link should end now, if it should.
    pub fn overdue(&self, now: Mono, wall: Wall) -> Option<Overdue> {
        match self.phase {
            Phase::Closed => None,
            Phase::Hello | Phase::Welcome => {
                (now >= self.opened + ADMISSION_TIMEOUT).then_some(Overdue::Admission)
            }
            Phase::Up if now >= self.silence_end() => Some(Overdue::Silence),
            Phase::Up if wall >= self.member_until => Some(Overdue::Membership),
            Phase::Up => self.spare_end().filter(|end| now >= *end).map(|_| Overdue::Spare),
        }
    }

    /// When to look again.
    pub fn next_timeout(&self) -> Option<Mono> {
        match self.phase {
            Phase::Closed => None,
            Phase::Hello | Phase::Welcome => Some(self.opened + ADMISSION_TIMEOUT),
            Phase::Up => {
                let soonest = self.next_ping.min(self.silence_end());
                Some(self.spare_end().map_or(soonest, |end| end.min(soonest)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Wall = Wall::from_millis(5);
    const FOREVER: Wall = Wall::from_millis(u64::MAX);

    fn at(ms: u64) -> Mono {
        Mono::from_micros(ms * 1000)
    }

    fn up(wants: bool) -> Link {
        let mut link = Link::new(ConnectionId(1), NodeId::from_bytes([1; 32]), true, at(0));
        link.member_until = FOREVER;
        link.go_up(at(0));
        if wants {
            link.set_wants(Want::Yes, Want::Yes, at(0));
        }
        link
    }

    #[test]
    fn who_does_not_say_hello_in_time_goes() {
        let link = Link::new(ConnectionId(1), NodeId::from_bytes([1; 32]), false, at(0));
        assert_eq!(link.overdue(at(4999), TODAY), None);
        assert_eq!(link.overdue(at(5000), TODAY), Some(Overdue::Admission));
    }

    #[test]
    fn silence_ends_a_neighbour_after_three_pings_and_any_sound_keeps_it() {
        let mut link = up(true);
        assert_eq!(link.overdue(at(2999), TODAY), None);
        assert_eq!(link.overdue(at(3000), TODAY), Some(Overdue::Silence));
        link.heard(at(2900));
        assert_eq!(link.overdue(at(5899), TODAY), None);
    }

    #[test]
    fn a_spare_link_goes_and_the_dialler_goes_first() {
        let mut link = up(false);
        link.heard(at(19_000));
        assert_eq!(link.overdue(at(20_000), TODAY), Some(Overdue::Spare));
        link.dialled = false;
        assert_eq!(link.overdue(at(20_000), TODAY), None);
    }

    #[test]
    fn a_link_that_carries_work_is_not_spare_and_silence_still_ends_it() {
        let mut link = up(false);
        link.heard(at(30_000));
        link.used(at(19_000));
        assert_eq!(link.overdue(at(38_999), TODAY), None);
        assert_eq!(link.overdue(at(39_000), TODAY), Some(Overdue::Spare));
        link.used(at(44_000));
        assert_eq!(link.overdue(at(45_000), TODAY), Some(Overdue::Silence));
    }

    #[test]
    fn a_membership_that_ends_ends_the_link() {
        let mut link = up(true);
        link.member_until = Wall::from_millis(10);
        assert_eq!(link.overdue(at(1), Wall::from_millis(9)), None);
    }

    #[test]
    fn pings_are_timed_and_only_the_last_counts() {
        let mut link = up(true);
        let nonce = link.take_ping(at(0)).unwrap();
        assert_eq!(link.take_ping(at(999)), None);
        link.pong(nonce + 1, at(30));
        assert_eq!(link.rtt, None);
        link.pong(nonce, at(40));
        assert_eq!(link.rtt, Some(Duration::from_millis(40)));
        assert_eq!(link.take_ping(at(1000)), Some(nonce + 1));
    }
}
