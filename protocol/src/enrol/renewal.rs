//! Renewal: a member's certificate lives seven days and is replaced before it ends, without people.
//!
//! ```text
//! member                                      a node of its org
//!   Renew: its present membership         ──▶   does it hold, now, for the key at the other end?
//!                                         ◀──   Grant: the next membership, the org's roots | Refuse
//! ```
//!
//! There is no token and no proof: the channel has proved the member's key, and the membership that it shows is the
//! org's own word on that key. Nothing is kept between the two frames, so each side is a check and no machine.

use minicbor::bytes::ByteVec;

use crate::ids::{MeshName, NodeId, RootHash};
use crate::time::Now;
use crate::trust::{Membership, RootChain, Verified};

use super::frames::{ENROL_FRAME_MAX, Frame, Grant, Refusal, RefusalCode};
use super::{EnrolError, Expectation, chain_of};

/// The member's side.
#[derive(Clone, Debug)]
pub struct Renewal {
    mesh: MeshName,
    pin: RootHash,
    old: Verified<Membership>,
}

/// What a member was given: its next membership, and its org's roots as they are now.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// The membership.
    pub membership: Verified<Membership>,
    /// The chain of roots under which it holds.
    pub roots: RootChain,
}

impl Renewal {
    /// Asks for what follows `old`, a membership of an org whose first root is `pin`.
    pub const fn new(mesh: MeshName, pin: RootHash, old: Verified<Membership>) -> Self {
        Self { mesh, pin, old }
    }

    /// The one frame to send.
    pub fn ask(&self) -> Vec<u8> {
        Frame::Renew(self.old.bytes().to_vec().into()).encode()
    }

    /// Takes the one frame that answers. Believes nothing that does not follow from the pin.
    ///
    /// # Errors
    /// [`EnrolError::Refused`] when the other side said no, another when its answer is of no use.
    pub fn handle_answer(&self, bytes: &[u8], now: Now) -> Result<Renewed, EnrolError> {
        let grant = match Frame::decode(bytes, ENROL_FRAME_MAX)? {
            Frame::Grant(grant) => grant,
            Frame::Refuse(refusal) => return Err(EnrolError::Refused(refusal)),
            other => return Err(EnrolError::Unexpected(other.name())),
        };
        let Membership { org, node, epoch, expires, .. } = &*self.old;
        let expected = Expectation { mesh: &self.mesh, org, pin: self.pin, node: *node };
        let introduced = expected.verify(&grant.roots, &grant.membership, now)?;
        if introduced.membership.epoch != *epoch {
            return Err(EnrolError::Grant("a renewal keeps the epoch"));
        }
        if introduced.membership.expires <= *expires {
            return Err(EnrolError::Grant("a renewal ends later than what it renews"));
        }
        Ok(Renewed { membership: introduced.membership, roots: introduced.chain })
    }
}

/// The side of a node that issues memberships for its org.
#[derive(Clone, Copy, Debug)]
pub struct Registrar<'a> {
    /// The mesh.
    pub mesh: &'a MeshName,
    /// The org's chain of roots.
    pub roots: &'a RootChain,
}

impl Registrar<'_> {
    /// Checks what `node`, whose key the channel has proved, shows in its Renew. Issue the next membership from what
    /// this returns, with epoch and places unchanged, and from nothing that the frame says.
    ///
    /// # Errors
    /// What to answer instead.
    pub fn check(&self, shown: &[u8], node: NodeId, now: Now) -> Result<Verified<Membership>, Refusal> {
        let no = |error: &dyn std::error::Error| Refusal::new(RefusalCode::Introduction, chain_of(error));
        let root = self.roots.verify().map_err(|error| no(&error))?;
        let pin = self.roots.pin().ok_or(RefusalCode::Internal)?;
        let expected = Expectation { mesh: self.mesh, org: &root.org, pin, node };
        let roots = ByteVec::from(self.roots.encode());
        let introduced = expected.verify(&roots, shown, now).map_err(|error| no(&error))?;
        Ok(introduced.membership)
    }

    /// The frame that hands the next membership over.
    pub fn grant(&self, membership: Vec<u8>) -> Vec<u8> {
        let roots = self.roots.encode().into();
        Frame::Grant(Grant { membership: membership.into(), roots, seeds: Vec::new() }).encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrol::STRANGER_FRAME_MAX;
    use crate::geo::CountrySet;
    use crate::testing::{DAY, TestNode, TestOrg, mesh, places};
    use crate::time::{Mono, Wall};
    use crate::trust::SealedType;

    const START: Wall = Wall::from_millis(1_795_000_000_000);

    fn day(n: u32) -> Now {
        Now { mono: Mono::ZERO + DAY * n, wall: START + DAY * n }
    }

    struct Two {
        org: TestOrg,
        node: TestNode,
        mesh: MeshName,
    }

    impl Two {
        fn new() -> Self {
            let org = TestOrg::new("acme.example", 1, START);
            let node = TestNode::new(&org, 1, places("DE FR"));
            Self { org, node, mesh: mesh() }
        }

        fn registrar(&self) -> Registrar<'_> {
            Registrar { mesh: &self.mesh, roots: &self.org.chain }
        }

        fn renewal(&self) -> Renewal {
            Renewal::new(mesh(), self.org.chain.pin().unwrap(), self.node.membership.clone())
        }

        fn next(&self, change: impl FnOnce(&mut Membership)) -> Vec<u8> {
            let later = |membership: &mut Membership| {
                membership.not_before = START + DAY * 4;
                membership.expires = START + DAY * 11;
                change(membership);
            };
            self.org.admit_with(self.node.id, places("DE FR"), later).bytes().to_vec()
        }

        /// What the registrar says to what `node` shows.
        fn refusal(&self, shown: &[u8], node: NodeId, now: Now) -> String {
            let refusal = self.registrar().check(shown, node, now).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Introduction);
            refusal.detail()
        }
    }

    #[test]
    fn a_member_renews_past_half_of_its_membership() {
        let two = Two::new();
        let renewal = two.renewal();
        let Frame::Renew(shown) = Frame::decode(&renewal.ask(), STRANGER_FRAME_MAX).unwrap() else {
            panic!()
        };
        let old = two.registrar().check(&shown, two.node.id, day(4)).unwrap();
        assert_eq!((old.epoch, old.locations_max), (1, places("DE FR")));
        let answer = two.registrar().grant(two.next(|_| {}));
        let renewed = renewal.handle_answer(&answer, day(4)).unwrap();
        assert_eq!(renewed.membership.expires, START + DAY * 11);
        assert_eq!(renewed.roots, two.org.chain);
    }

    #[test]
    fn only_a_member_of_this_org_whose_membership_holds_is_renewed() {
        let two = Two::new();
        let own = two.node.membership.bytes();
        for (shown, node, now, part) in [
            (own.to_vec(), two.node.id, day(7), "expired"),
            (own.to_vec(), NodeId::from_bytes([7; 32]), day(1), "presented it"),
            (own[..40].to_vec(), two.node.id, day(1), "envelope"),
            (Vec::new(), two.node.id, day(1), "envelope"),
        ] {
            let detail = two.refusal(&shown, node, now);
            assert!(detail.contains(part), "{part}: {detail}");
        }
        for (name, seed, part) in [("beta.example", 2, "not pinned"), ("acme.example", 66, "may not issue")] {
            let other = TestOrg::new(name, seed, START);
            let shown = other.admit(two.node.id, places("DE FR"));
            let detail = two.refusal(shown.bytes(), two.node.id, day(1));
            assert!(detail.contains(part), "{part}: {detail}");
        }
    }

    #[test]
    fn a_member_believes_no_answer_but_its_orgs() {
        let two = Two::new();
        let evil = TestOrg::new("acme.example", 66, START);
        let forged =
            evil.admit_with(two.node.id, places("US"), |m| m.expires = START + DAY * 7).bytes().to_vec();
        let grant = |membership: Vec<u8>| two.registrar().grant(membership);
        let foreign = Registrar { mesh: &two.mesh, roots: &evil.chain };
        for (answer, part) in [
            (grant(two.next(|m| m.epoch = 2)), "keeps the epoch"),
            (grant(two.node.membership.bytes().to_vec()), "ends later"),
            (grant(two.next(|m| m.node = NodeId::from_bytes([9; 32]))), "membership does not hold"),
            (grant(forged.clone()), "membership does not hold"),
            (foreign.grant(forged), "roots do not hold"),
            (Frame::Refuse(RefusalCode::NotIssuer.into()).encode(), "ask another"),
            (Frame::Done.encode(), "Done out of turn"),
            (vec![0x82, 0x18], "cannot be read"),
        ] {
            let error = two.renewal().handle_answer(&answer, day(4)).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn the_largest_membership_fits_where_strangers_are_read() {
        let frame = Frame::Renew(vec![0; Membership::BYTES_MAX].into()).encode();
        assert!(frame.len() <= STRANGER_FRAME_MAX);
        let org = TestOrg::new(&format!("{}.example", "a".repeat(60)), 1, START);
        let everywhere: CountrySet =
            places("AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI");
        let membership = org.admit(NodeId::from_bytes([1; 32]), everywhere);
        assert!(membership.bytes().len() < Membership::BYTES_MAX);
    }

    /// Fixed for ever within `/comity/enrol/1`.
    #[test]
    fn the_bytes_are_pinned() {
        assert_eq!(Frame::Renew(vec![1, 2, 3].into()).encode(), [0x82, 0x08, 0x81, 0x43, 1, 2, 3]);
    }
}
