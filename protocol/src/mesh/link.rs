//! One connection's link: admission, then liveness.
//!
//! The dialler says hello, the listener checks it, lets the dialler's streams in and says hello itself; the dialler
//! checks that, opens everything and says welcome; on that the listener opens everything too. Either may refuse instead.
//! In this order neither side opens a stream that the other would still turn away.
//!
//! Afterwards silence is what counts: nothing in libp2p closes a connection whose pings fail, so this does. One exchange of
//! ping and pong serves both sides, which take turns. Long before silence closes a connection it raises a doubt: two
//! pings in a row, each unanswered for as long as answers have been taking (RFC 6298), make the peer a suspect.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{NodeId, OrgName, RootHash};
use crate::time::{Mono, Wall};
use crate::trust::RoleSet;

use super::ConnectionId;
use super::overlay::UNDECIDED;
use super::wire::Want;

/// How long a peer may take from connecting to being admitted.
pub const ADMISSION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often neighbours ping each other.
pub const NEIGHBOUR_PING: Duration = Duration::from_secs(1);

/// How often other linked peers do.
pub const IDLE_PING: Duration = Duration::from_secs(5);

/// How many intervals of silence end a connection.
const SILENT_PINGS: u32 = 3;

/// How many unanswered pings in a row make a neighbour a suspect.
const DOUBTS_MAX: u8 = 2;

/// How long a link that nobody needs as a neighbour's is kept; the side that listened waits twice as long, so that the
/// dialler, which knows best why it came, usually closes it.
pub const SPARE_LINK_LIFE: Duration = Duration::from_secs(20);

/// How much later than its turn the side that pinged last pings again, should the other let its own turn pass.
const TURN_PASSED: Duration = Duration::from_millis(500);

/// The least and the most time that an answer to a ping is waited for before the peer is doubted.
const ANSWER_MIN: Duration = Duration::from_millis(200);
/// See [`ANSWER_MIN`]. On a line on which answers may take longer, only lasting silence counts: it loses packets, and to doubt
/// everybody behind it would help nobody.
const ANSWER_MAX: Duration = Duration::from_millis(750);

/// How much longer than usual an answer may always take: a busy machine, a delayed acknowledgement.
const ANSWER_SLACK: Duration = Duration::from_millis(50);

/// The least time between two exchanges of anti-entropy that one side begins on one link, when the last taught nothing.
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
    /// How round trips vary, with [`Self::rtt`] smoothed: RFC 6298's RTTVAR and SRTT.
    variation: Duration,
    smoothed: Option<Duration>,
    /// Until when the last ping is answered, or the peer doubted.
    answer_due: Option<Mono>,
    doubts: u8,
}

/// What an unanswered ping comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The first: ask again at once.
    Again,
    /// The second: hold the peer dead until it is heard.
    Suspect,
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
            variation: Duration::ZERO,
            smoothed: None,
            answer_due: None,
            doubts: 0,
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

    /// Whether it is so young that it may become a neighbour's yet.
    pub fn is_undecided(&self, now: Mono) -> bool {
        !self.is_neighbour() && self.phase != Phase::Closed && now.since(self.opened) < UNDECIDED
    }

    /// Both have admitted each other: begins pinging at once, so that directories are compared at once.
    pub fn go_up(&mut self, now: Mono) {
        self.phase = Phase::Up;
        self.next_ping = now;
        self.spare_since = now;
    }

    /// Something came from the peer.
    /// Returns whether it was held dead until then.
    pub fn heard(&mut self, now: Mono) -> bool {
        self.last_heard = now;
        self.answer_due = None;
        core::mem::take(&mut self.doubts) >= DOUBTS_MAX
    }

    /// The peer has pinged: both sides know now that the other is there, so our own ping waits for our turn.
    pub fn pinged(&mut self, now: Mono) {
        self.next_ping = self.next_ping.max(now + self.interval());
    }

    /// What the silence after a ping comes to, once that has lasted.
    pub fn take_doubt(&mut self, now: Mono) -> Option<Doubt> {
        self.answer_due.take_if(|due| now >= *due)?;
        self.doubts += 1;
        if self.doubts >= DOUBTS_MAX {
            return Some(Doubt::Suspect);
        }
        self.next_ping = now;
        Some(Doubt::Again)
    }

    /// Whether the peer is held dead on this link until it is heard again.
    pub const fn is_doubted(&self) -> bool {
        self.doubts >= DOUBTS_MAX
    }

    /// How long an answer is waited for (RFC 6298); `None` while that is not known, or on a line that is not steady.
    fn answer_wait(&self) -> Option<Duration> {
        let wait = self.smoothed? + self.variation * 4 + ANSWER_SLACK;
        (wait <= ANSWER_MAX).then_some(wait.max(ANSWER_MIN))
    }

    fn time_answer(&mut self, took: Duration) {
        (self.smoothed, self.variation) = match self.smoothed {
            None => (Some(took), took / 2),
            Some(smoothed) => {
                // It rises as in the RFC and falls more slowly: what has been lost once will be lost again.
                let (variation, by) = (self.variation, smoothed.abs_diff(took));
                let fall = if by > variation { 4 } else { 32 };
                let variation = variation * (fall - 1) / fall + by / fall;
                (Some(smoothed * 7 / 8 + took / 8), variation)
            }
        };
        self.rtt = Some(took);
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
        self.next_ping = now + self.interval() + TURN_PASSED;
        if self.is_neighbour() && !self.is_doubted() {
            self.answer_due = self.answer_wait().map(|wait| now + wait);
        }
        Some(self.pings)
    }

    /// The answer to a ping came.
    pub fn pong(&mut self, nonce: u32, now: Mono) {
        if let Some((_, sent)) = self.ping.take_if(|(sent_nonce, _)| *sent_nonce == nonce) {
            self.time_answer(now.since(sent));
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
                let soonest = self.answer_due.map_or(soonest, |due| due.min(soonest));
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
        assert_eq!(link.take_ping(at(1499)), None);
        assert_eq!(link.take_ping(at(1500)), Some(nonce + 1));
    }

    #[test]
    fn who_was_pinged_waits_for_its_own_turn() {
        let mut link = up(true);
        link.take_ping(at(0)).unwrap();
        link.pinged(at(1000));
        assert_eq!(link.take_ping(at(1999)), None);
        assert!(link.take_ping(at(2000)).is_some());
    }

    #[test]
    fn two_pings_unanswered_for_as_long_as_answers_take_make_a_suspect_and_any_sound_clears_it() {
        let mut link = up(true);
        for start in [0, 2000, 4000, 6000, 8000, 10_000] {
            let nonce = link.take_ping(at(start)).unwrap();
            link.heard(at(start + 100));
            link.pong(nonce, at(start + 100));
        }
        link.take_ping(at(12_000)).unwrap();
        assert_eq!(link.take_doubt(at(12_190)), None);
        assert_eq!(link.take_doubt(at(12_400)), Some(Doubt::Again));
        assert!(link.take_ping(at(12_400)).is_some() && !link.is_doubted());
        assert_eq!(link.take_doubt(at(12_800)), Some(Doubt::Suspect));
        assert!(link.take_ping(at(14_300)).is_some());
        assert_eq!(link.take_doubt(at(15_300)), None, "it is told once");
        assert!(link.heard(at(15_301)) && !link.is_doubted() && !link.heard(at(15_302)));
    }

    #[test]
    fn on_a_line_that_often_resends_only_silence_counts() {
        let mut link = up(true);
        for (turn, took) in (0..40_u64).map(|turn| (turn * 2000, if turn % 3 == 0 { 500 } else { 100 })) {
            let nonce = link.take_ping(at(turn)).unwrap();
            link.heard(at(turn + took));
            link.pong(nonce, at(turn + took));
        }
        link.take_ping(at(80_000)).unwrap();
        assert_eq!(link.take_doubt(at(82_000)), None);
    }
}
