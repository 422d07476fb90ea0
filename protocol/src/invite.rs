//! The line that one person hands another so that a node may join an org, or two orgs may federate.
//!
//! It is `comity1:` and then, in base64url without padding (RFC 4648), two bytes of length, a canonical CBOR array and
//! four bytes of checksum. The line carries all that the joining side must believe beforehand — whom to dial, which key
//! to find there, which root to pin — and a one-time secret that proves the invitation. docs/protocol-enrolment.md has
//! the bytes.

use core::fmt;
use core::str::FromStr;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, DecodeKind};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::codec::{self, CodecError};
use crate::ids::{MeshName, NodeId, OrgName, RootHash, fixed_bytes};
use crate::time::Wall;

/// What every line begins with; the digit is the version of the layout.
pub const INVITE_PREFIX: &str = "comity1:";

/// Longest line that is read.
pub const INVITE_LINE_BYTES_MAX: usize = 4096;

/// Most addresses in an invite.
pub const INVITE_ADDRESSES_MAX: usize = 8;

/// Most bytes of each address.
pub const INVITE_ADDRESS_BYTES_MAX: usize = 256;

/// Longest life of an invite: a secret that lies in a mailbox should not open doors for ever.
pub const INVITE_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;

/// What an invite is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum InviteKind {
    /// A node joins the inviter's org.
    #[n(0)]
    Member,
    /// Another org and the inviter's pin each other's root.
    #[n(1)]
    Federate,
}

/// The one-time secret of an invite: 128 random bits, which the shell draws. Nothing shows it but
/// [`Invite::to_line`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 16]);

impl Token {
    /// The token of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The invite's public name, by which the inviter finds it. It tells nothing of the token.
    pub fn id(&self) -> InviteId {
        let digest = blake3::derive_key("comity 2026 invite id", &self.0);
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        InviteId(id)
    }

    /// A key for one purpose; what is made with it is void for every other purpose.
    pub(crate) fn key(&self, purpose: &'static str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl<C> Encode<C> for Token {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Token {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        fixed_bytes(d).map(Self)
    }
}

/// The public name of an invite, derived from its token: fit for logs and for a store's key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId([u8; 16]);

impl InviteId {
    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for InviteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InviteId({self})")
    }
}

impl<C> Encode<C> for InviteId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for InviteId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        fixed_bytes(d).map(Self)
    }
}

/// Why a line was refused. No variant repeats the line: it holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Something else was pasted.
    #[error("this is not an invite: it should begin with {INVITE_PREFIX}")]
    NotAnInvite,
    /// Made by another version of Comity.
    #[error("this invite is of another version: this node reads those that begin with {INVITE_PREFIX}")]
    Version,
    /// Longer than any invite is.
    #[error(
        "this is longer than an invite can be ({INVITE_LINE_BYTES_MAX} characters): was more than one line pasted?"
    )]
    TooLong,
    /// A character that no invite has.
    #[error("character {0} of the invite is none that an invite has: copy the line again")]
    Character(usize),
    /// The end is missing.
    #[error("the invite is cut short: copy the whole line, from {INVITE_PREFIX} to its end")]
    Truncated,
    /// There is more after the end.
    #[error("there is something after the end of the invite: copy that line alone")]
    Trailing,
    /// A character was changed.
    #[error("the invite was changed on its way (its checksum is wrong): copy the line again")]
    Checksum,
    /// It has the right checksum and cannot be read all the same.
    #[error("the invite cannot be read")]
    Codec(#[from] CodecError),
    /// It breaks a bound that every inviter keeps.
    #[error("the invite is not well formed: {0}")]
    Malformed(&'static str),
    /// Too late.
    #[error("the invite expired at {0}: ask for a new one")]
    Expired(Wall),
}

/// An invitation, as its line says. `Debug` and `Display` do not show the token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Invite {
    /// What it is for.
    #[n(0)]
    pub kind: InviteKind,
    /// The mesh to join.
    #[n(1)]
    pub mesh: MeshName,
    /// The node that invites; its key is what the joiner must find at the address.
    #[n(2)]
    pub inviter: NodeId,
    /// Where it can be dialled, as multiaddrs.
    #[n(3)]
    pub addresses: Vec<String>,
    /// The inviter's org.
    #[n(4)]
    pub org: OrgName,
    /// The org's first root, to pin.
    #[n(5)]
    pub root: RootHash,
    /// The secret.
    #[n(6)]
    pub token: Token,
    /// Until when.
    #[n(7)]
    pub expires: Wall,
}

impl Invite {
    /// The line to hand over. It is a secret: whoever has it can use it.
    ///
    /// # Errors
    /// [`InviteError::Malformed`] when an address list is too long to hand over.
    pub fn to_line(&self) -> Result<String, InviteError> {
        self.check()?;
        let body = codec::encode(self);
        let length = u16::try_from(body.len()).map_err(|_| InviteError::TooLong)?;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&checksum(&body));
        Ok(format!("{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }

    /// Reads a line as people paste it: with spaces, line breaks or quotes around and inside it. Expiry is
    /// [`check_time`](Self::check_time)'s.
    ///
    /// # Errors
    /// [`InviteError`], which says what to do.
    pub fn parse(line: &str) -> Result<Self, InviteError> {
        if line.len() > INVITE_LINE_BYTES_MAX {
            return Err(InviteError::TooLong);
        }
        let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        let line = line.trim_matches(['"', '\'', '`']);
        let text = line.strip_prefix(INVITE_PREFIX).ok_or_else(|| not_ours(line))?;
        let invite: Self = codec::decode(&body_of(text)?, INVITE_LINE_BYTES_MAX)?;
        invite.check()?;
        Ok(invite)
    }

    /// Whether it still holds.
    ///
    /// # Errors
    /// [`InviteError::Expired`].
    pub fn check_time(&self, now: Wall) -> Result<(), InviteError> {
        if now >= self.expires { Err(InviteError::Expired(self.expires)) } else { Ok(()) }
    }

    fn check(&self) -> Result<(), InviteError> {
        let bad = |address: &String| {
            address.len() > INVITE_ADDRESS_BYTES_MAX || address.chars().any(char::is_control)
        };
        if self.addresses.len() > INVITE_ADDRESSES_MAX {
            return Err(InviteError::Malformed("it has more than 8 addresses"));
        }
        if self.addresses.iter().any(bad) {
            return Err(InviteError::Malformed(
                "an address is longer than 256 bytes or has control characters",
            ));
        }
        Ok(())
    }
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(line: &str) -> Result<Self, InviteError> {
        Self::parse(line)
    }
}

/// What a person should know of it.
impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            InviteKind::Member => "join",
            InviteKind::Federate => "federate with",
        };
        let Self { org, mesh, inviter, expires, .. } = self;
        write!(f, "an invite to {what} {org} in mesh {mesh}, from node {inviter}, until {expires}")
    }
}

fn not_ours(line: &str) -> InviteError {
    let version = line.strip_prefix("comity").and_then(|rest| rest.split_once(':')).map(|(digits, _)| digits);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if version.is_some_and(digits) { InviteError::Version } else { InviteError::NotAnInvite }
}

/// Takes off base64, length and checksum, and tells the ways apart in which a line goes wrong on its way.
fn body_of(text: &str) -> Result<Vec<u8>, InviteError> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|error| match error.kind {
        DecodeKind::Symbol => InviteError::Character(INVITE_PREFIX.len() + error.position + 1),
        // The last character is half a byte short.
        _ => InviteError::Truncated,
    })?;
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(InviteError::Truncated)?;
    let length = usize::from(u16::from_be_bytes(*length));
    match rest.len().cmp(&(length + CHECKSUM_BYTES)) {
        core::cmp::Ordering::Less => Err(InviteError::Truncated),
        core::cmp::Ordering::Greater => Err(InviteError::Trailing),
        core::cmp::Ordering::Equal if rest[length..] != checksum(&rest[..length]) => {
            Err(InviteError::Checksum)
        }
        core::cmp::Ordering::Equal => Ok(rest[..length].to_vec()),
    }
}

/// Against slips of the hand, not against malice: whoever changes an invite can compute this too.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = blake3::derive_key("comity 2026 invite checksum", body);
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall::from_millis(1_795_000_000_000);

    fn invite() -> Invite {
        Invite {
            kind: InviteKind::Member,
            mesh: "test".parse().unwrap(),
            inviter: NodeId::from_bytes([7; 32]),
            addresses: vec!["/ip4/192.0.2.7/udp/7422/quic-v1".into(), "/ip4/192.0.2.7/tcp/7422".into()],
            org: "acme.example".parse().unwrap(),
            root: RootHash::of(b"root"),
            token: Token::from_bytes(*b"sixteen secrets!"),
            expires: NOW + Duration::from_secs(3600),
        }
    }

    #[test]
    fn a_line_reads_back_however_it_is_pasted() {
        let line = invite().to_line().unwrap();
        assert!(line.len() < 320, "{} characters", line.len());
        let wrapped = format!("  {}\r\n{}\n", &line[..80], &line[80..]);
        for pasted in [line.clone(), wrapped, format!("\"{line}\""), format!("'{line}'\n")] {
            assert_eq!(Invite::parse(&pasted), Ok(invite()));
        }
    }

    #[test]
    fn what_goes_wrong_on_the_way_is_named() {
        let line = invite().to_line().unwrap();
        let swapped = |at: usize| {
            let other = if &line[at..=at] == "A" { "B" } else { "A" };
            format!("{}{other}{}", &line[..at], &line[at + 1..])
        };
        let longer = format!("{line}AAAA");
        for (text, expected) in [
            ("", InviteError::NotAnInvite),
            ("hello", InviteError::NotAnInvite),
            ("comity:xyz", InviteError::NotAnInvite),
            ("comity2:AAAA", InviteError::Version),
            ("comity1:", InviteError::Truncated),
            ("comity1:AA", InviteError::Truncated),
            (&line[..line.len() - 5], InviteError::Truncated),
            (&line[..60], InviteError::Truncated),
            (&longer, InviteError::Trailing),
            (&line.replacen("comity1:", "comity1:!", 1), InviteError::Character(9)),
            (&swapped(40), InviteError::Checksum),
            (&swapped(line.len() - 8), InviteError::Checksum),
            (&"comity1:".repeat(600), InviteError::TooLong),
        ] {
            assert_eq!(Invite::parse(text), Err(expected));
        }
    }

    #[test]
    fn no_truncation_and_no_changed_character_passes() {
        let line = invite().to_line().unwrap();
        for at in 0..line.len() {
            assert!(Invite::parse(&line[..at]).is_err(), "cut at {at}");
            let mut changed = line.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(Invite::parse(&String::from_utf8(changed).unwrap()).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn it_expires() {
        assert!(invite().check_time(NOW).is_ok());
        let end = invite().expires;
        assert_eq!(invite().check_time(end), Err(InviteError::Expired(end)));
    }

    #[test]
    fn the_token_is_never_shown() {
        let shown = format!("{:?} {} {:?}", invite(), invite(), invite().token);
        let token = b"sixteen secrets!";
        for form in [
            String::from_utf8_lossy(token).into_owned(),
            data_encoding::HEXLOWER.encode(token),
            format!("{token:?}"),
            format!("{}", token[0]),
        ] {
            assert!(!shown.contains(&form), "{shown}");
        }
        assert_ne!(invite().token.id().as_bytes(), token);
    }

    #[test]
    fn too_many_addresses_are_refused_on_both_sides() {
        let crowded = Invite { addresses: vec!["/memory/1".into(); 9], ..invite() };
        assert!(matches!(crowded.to_line(), Err(InviteError::Malformed(_))));
        let body = codec::encode(&crowded);
        let bytes = [&(body.len() as u16).to_be_bytes()[..], &body, &checksum(&body)].concat();
        let line = format!("{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        assert!(matches!(Invite::parse(&line), Err(InviteError::Malformed(_))));
        let widest = Invite { addresses: vec!["x".repeat(256); 8], ..invite() };
        assert_eq!(Invite::parse(&widest.to_line().unwrap()), Ok(widest));
    }

    /// Fixed for ever within `comity1:`: the example of docs/protocol-enrolment.md.
    #[test]
    fn the_line_is_pinned() {
        let example = Invite {
            kind: InviteKind::Federate,
            addresses: vec!["/memory/1".into()],
            root: RootHash::from_bytes([9; 32]),
            ..invite()
        };
        let line = concat!(
            "comity1:AH2IAWR0ZXN0WCAHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB4FpL21lbW9yeS8xbGFjbWUuZXhhbXBs",
            "ZVggCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQlQc2l4dGVlbiBzZWNyZXRzIRsAAAGh7o1MgFW9Kuo"
        );
        assert_eq!(example.to_line().as_deref(), Ok(line));
    }
}
