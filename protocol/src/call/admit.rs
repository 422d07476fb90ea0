//! Whether the executor takes a call up: every check on its header, in order.
//!
//! Everything that the caller's router decided is decided again, with the same function ([`residency::check`]) on this
//! node's own site: a caller whose directory is out of date, or who lies, gets a refusal and not an answer.

use crate::constraints::DataClass;
use crate::ids::{CapabilityId, ContractDigest, NodeId, OrgName};
use crate::route::{Rejection, SiteFacts, residency};
use crate::time::Now;

use super::frame::{PAYLOAD_BYTES_MAX, Refusal};
use super::header::CallHeader;
use super::methods;
use super::seen::{SeenCalls, SeenError};

/// Who is at the other end of the stream, as the admitted connection proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerPeer {
    /// The node.
    pub node: NodeId,
    /// Its org, by its membership.
    pub org: OrgName,
    /// Whether its membership has the role to make calls.
    pub is_client: bool,
}

/// Who may call what this node offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// Nodes of this node's org.
    Org,
    /// Nodes of every pinned org.
    Federation,
}

/// What this node offers under one capability now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalOffer {
    /// The contract's digest now.
    pub contract: ContractDigest,
    /// The highest class of data that it takes.
    pub class_max: DataClass,
    /// Who may call it.
    pub visibility: Visibility,
}

/// What the executor needs to know of its node to decide on a header.
pub struct Desk<'a> {
    /// This node's own site. Its `class_max` does not count; the offer's does.
    pub site: &'a SiteFacts,
    /// What this node offers under a capability; `None` when nothing, or nothing to be shared.
    pub offer: &'a dyn Fn(&CapabilityId) -> Option<LocalOffer>,
    /// Which calls were accepted lately.
    pub seen: &'a mut SeenCalls,
    /// Whether this node's own membership has the role to run calls for others, and is in force.
    pub is_executor: bool,
    /// Whether there is room for another call.
    pub has_room: bool,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseCode {
    /// It names another executor.
    WrongExecutor,
    /// It names another caller than the connection proves.
    WrongPrincipal,
    /// The caller's membership does not let it make calls.
    NotClient,
    /// This node's membership does not let it run calls for others.
    NotExecutor,
    /// It has been passed on too often.
    HopLimit,
    /// Its caller's deadline has passed.
    DeadlinePassed,
    /// The method is not one that can be asked of a capability of this kind.
    UnknownMethod,
    /// Nothing is offered under the capability, or not to this caller: the two look the same on purpose.
    UnknownCapability,
    /// The capability is offered under another contract now.
    ContractMismatch,
    /// The call was accepted before.
    DuplicateCall,
    /// The header's time is too far off.
    StaleCall,
    /// No room for another call.
    Overloaded,
    /// The body is too large.
    TooLarge,
    /// The body is not the one that the header promised.
    WrongRequest,
}

impl RefuseCode {
    /// The stable name. A refusal over constraints bears the first failing rule's code instead: [`Rejection::code`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WrongExecutor => "wrong_executor",
            Self::WrongPrincipal => "wrong_principal",
            Self::NotClient => "not_client",
            Self::NotExecutor => Rejection::NotExecutor.code(),
            Self::HopLimit => "hop_limit",
            Self::DeadlinePassed => "deadline_passed",
            Self::UnknownMethod => "unknown_method",
            Self::UnknownCapability => "unknown_capability",
            Self::ContractMismatch => "contract_mismatch",
            Self::DuplicateCall => "duplicate_call",
            Self::StaleCall => "stale_call",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::WrongRequest => "wrong_request",
        }
    }

    /// A refusal for this reason.
    pub(super) fn because(self, detail: impl Into<String>) -> Refusal {
        Refusal::new(self.as_str(), detail)
    }
}

/// Every check on a header; those that cost nothing and reveal nothing come first. The call is remembered last, so that
/// a refused one may be offered again.
pub(super) fn check(
    header: &CallHeader,
    peer: &CallerPeer,
    desk: &mut Desk<'_>,
    now: Now,
) -> Result<(), Refusal> {
    check_binding(header, peer, desk.site)?;
    check_roles(peer, desk.is_executor)?;
    check_limits(header, desk.has_room)?;
    check_offer(header, peer, desk)?;
    let seen = desk.seen.accept(peer.node, header.call, header.sent, now);
    seen.map_err(|error| seen_code(error).because(error.to_string()))
}

/// The header is for this node and comes from whom it says: the assertion is worth nothing elsewhere.
fn check_binding(header: &CallHeader, peer: &CallerPeer, site: &SiteFacts) -> Result<(), Refusal> {
    if header.executor != site.node {
        let detail = format!("the call is for {}, and this is {}", header.executor, site.node);
        return Err(RefuseCode::WrongExecutor.because(detail));
    }
    if header.principal.node != peer.node || header.principal.org != peer.org {
        let detail = format!("the call names another caller than {} of {}", peer.node, peer.org);
        return Err(RefuseCode::WrongPrincipal.because(detail));
    }
    Ok(())
}

fn check_roles(peer: &CallerPeer, is_executor: bool) -> Result<(), Refusal> {
    if !peer.is_client {
        return Err(RefuseCode::NotClient.because("the caller's membership does not let it make calls"));
    }
    if !is_executor {
        return Err(RefuseCode::NotExecutor.because(Rejection::NotExecutor.summary()));
    }
    Ok(())
}

fn check_limits(header: &CallHeader, has_room: bool) -> Result<(), Refusal> {
    if header.hops == 0 {
        let detail = "the call has been passed on too often: is there a loop of nodes?";
        return Err(RefuseCode::HopLimit.because(detail));
    }
    if header.deadline_ms == 0 {
        return Err(RefuseCode::DeadlinePassed.because("the caller's deadline has passed"));
    }
    if !methods::is_routed(header.capability.kind, &header.method) {
        let detail = format!("{} cannot be asked of a {}", header.method, header.capability.kind);
        return Err(RefuseCode::UnknownMethod.because(detail));
    }
    if header.request_bytes as usize > PAYLOAD_BYTES_MAX {
        let detail = format!("{} bytes where {PAYLOAD_BYTES_MAX} are allowed", header.request_bytes);
        return Err(RefuseCode::TooLarge.because(detail));
    }
    if !has_room {
        return Err(RefuseCode::Overloaded.because("this node runs as many calls as it may"));
    }
    Ok(())
}

/// The capability is offered to this caller under the contract it knows, and the constraints hold here.
fn check_offer(header: &CallHeader, peer: &CallerPeer, desk: &Desk<'_>) -> Result<(), Refusal> {
    let own_org = header.capability.org == desk.site.org;
    let offer = own_org.then(|| (desk.offer)(&header.capability)).flatten();
    let visible =
        |offer: &LocalOffer| offer.visibility == Visibility::Federation || peer.org == desk.site.org;
    let unknown = || {
        let detail = format!("{} is not offered here to {}", header.capability, peer.org);
        RefuseCode::UnknownCapability.because(detail)
    };
    let offer = offer.filter(visible).ok_or_else(unknown)?;
    if offer.contract != header.contract {
        let (here, there) = (offer.contract.short(), header.contract.short());
        let detail = format!("it is offered under contract {here} now; the call is for {there}");
        return Err(RefuseCode::ContractMismatch.because(detail));
    }
    let site = SiteFacts { class_max: offer.class_max, ..desk.site.clone() };
    check_constraints(header, &site)
}

fn check_constraints(header: &CallHeader, site: &SiteFacts) -> Result<(), Refusal> {
    let failed = residency::check(&header.constraints, site);
    let told = |reason: Rejection| (reason.code().to_owned(), site.explain(reason, &header.constraints));
    match failed.iter().next().map(told) {
        None => Ok(()),
        Some((code, detail)) => Err(Refusal::new(&code, detail).because(failed.iter().map(told))),
    }
}

const fn seen_code(error: SeenError) -> RefuseCode {
    match error {
        SeenError::Stale => RefuseCode::StaleCall,
        SeenError::Duplicate => RefuseCode::DuplicateCall,
        SeenError::Full => RefuseCode::Overloaded,
    }
}
