//! Names and identifiers. Each is parsed once, at the edge, and cannot be wrong afterwards.

use core::fmt;
use core::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Why a name or an identifier was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text of a node id is not the base58 form of an ed25519 peer id.
    #[error(
        "`{0}` is not a node id: expected the libp2p peer id of an ed25519 key, which starts with 12D3KooW"
    )]
    Node(String),
    /// An org's name is not DNS-like.
    #[error(
        "`{0}` is not an org name: expected a DNS-like name such as acme.example (a-z, 0-9, - and dots, at most 253)"
    )]
    Org(String),
    /// A server's name has characters that tool names may not have, or a wrong length.
    #[error("`{0}` is not a server name: expected 1 to 64 of a-z, A-Z, 0-9, _ and -")]
    Server(String),
    /// A mesh's name has a wrong length or wrong characters.
    #[error("`{0}` is not a mesh name: expected 1 to 64 of a-z, 0-9, - and .")]
    Mesh(String),
    /// A tool's name is empty, too long, or has control characters.
    #[error("a name must be 1 to {ITEM_NAME_BYTES_MAX} bytes without control characters")]
    Item,
    /// A digest is not written as `blake3:` and 64 hexadecimal digits.
    #[error("`{0}` is not a digest: expected blake3: and 64 hexadecimal digits")]
    Digest(String),
}

/// The bytes that precede the key in an ed25519 peer id: an identity multihash over libp2p's protobuf of the key
/// (libp2p peer-ids specification, "Peer Ids").
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Characters of the text of such a peer id.
const PEER_ID_CHARS: usize = 52;

/// Most bytes of a tool's or a prompt's name.
pub const CALLED_NAME_BYTES_MAX: usize = 128;

/// Most bytes of any item's name; URIs are the longest.
pub const ITEM_NAME_BYTES_MAX: usize = 1024;

/// A node's identity: its ed25519 public key, shown as the libp2p peer id of that key.
///
/// The bytes are those of a key as claimed; whether they are a point on the curve shows when a signature is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// The node whose ed25519 public key is `key`.
    pub const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The public key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key that checks this node's signatures; `None` when the bytes are not a valid public key.
    pub fn verifying_key(&self) -> Option<VerifyingKey> {
        VerifyingKey::from_bytes(&self.0).ok()
    }

    /// The binary peer id (38 bytes).
    pub fn to_peer_id_bytes(&self) -> [u8; 38] {
        let mut out = [0; 38];
        out[..6].copy_from_slice(&PEER_ID_PREFIX);
        out[6..].copy_from_slice(&self.0);
        out
    }

    /// Reads a binary peer id.
    ///
    /// # Errors
    /// [`IdError::Node`] when it is not that of an ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX).and_then(|key| key.try_into().ok());
        key.map(Self).ok_or_else(|| IdError::Node(bs58::encode(&bytes[..bytes.len().min(64)]).into_string()))
    }

    /// The last eight characters of the peer id: enough for a person to tell nodes apart in a table.
    pub fn short(&self) -> String {
        let full = self.to_string();
        full[full.len() - 8..].to_owned()
    }
}

impl From<VerifyingKey> for NodeId {
    fn from(key: VerifyingKey) -> Self {
        Self(key.to_bytes())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = base58(&self.to_peer_id_bytes());
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

/// The base58 text of a binary peer id, whose first byte is zero and whose second is not: of fixed length, which makes it
/// several times faster than for bytes of any length. A node's id is written in every call.
fn base58(peer_id: &[u8; 38]) -> [u8; PEER_ID_CHARS] {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    const DIGITS_AT_ONCE: usize = 5;
    const DIVISOR: u64 = 58_u64.pow(DIGITS_AT_ONCE as u32);
    let mut padded = [0; 40];
    padded[2..].copy_from_slice(peer_id);
    let mut limbs = [0_u32; 10];
    for (limb, bytes) in limbs.iter_mut().zip(padded.as_chunks::<4>().0) {
        *limb = u32::from_be_bytes(*bytes);
    }
    let mut text = [ALPHABET[0]; PEER_ID_CHARS];
    for digits in text.rchunks_mut(DIGITS_AT_ONCE) {
        let mut remainder = 0;
        for limb in &mut limbs {
            let dividend = remainder << 32 | u64::from(*limb);
            *limb = (dividend / DIVISOR) as u32;
            remainder = dividend % DIVISOR;
        }
        for digit in digits.iter_mut().rev() {
            *digit = ALPHABET[(remainder % 58) as usize];
            remainder /= 58;
        }
    }
    text
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::Node(text.chars().take(80).collect());
        let mut buffer = [0; 38];
        // Decoding into a fixed buffer bounds the work that a long text can cause.
        let length = bs58::decode(text).onto(&mut buffer[..]).map_err(|_| refuse())?;
        Self::from_peer_id_bytes(&buffer[..length]).map_err(|_| refuse())
    }
}

impl<C> Encode<C> for NodeId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NodeId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        fixed_bytes(d).map(Self)
    }
}

/// Reads a byte string of exactly `N` bytes.
pub(crate) fn fixed_bytes<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], decode::Error> {
    d.bytes()?.try_into().map_err(|_| decode::Error::message("byte string of the wrong length"))
}

/// Defines a name: text that a predicate accepts, kept behind an `Arc` because names are cloned into every table.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $error:expr, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) { Ok(Self(text.into())) } else { Err($error(text)) }
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                d.str()?.parse().map_err(|error: IdError| decode::Error::message(error.to_string()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(
    /// An organisation's name: DNS-like and lower case, such as `acme.example`.
    OrgName,
    |text: &str| IdError::Org(shorten(text)),
    is_dns_like
);

name!(
    /// The name by which a node knows one of its MCP servers.
    ServerName,
    |text: &str| IdError::Server(shorten(text)),
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
);

name!(
    /// A mesh's name: nodes of different meshes do not talk, and a signature for one is void in another.
    MeshName,
    |text: &str| IdError::Mesh(shorten(text)),
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
);

name!(
    /// What a server calls one of the things that it offers: a tool's or a prompt's name, a resource's URI, a template's
    /// URI template.
    ItemName,
    |_: &str| IdError::Item,
    |text| (1..=ITEM_NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
);

fn shorten(text: &str) -> String {
    text.chars().take(80).filter(|c| !c.is_control()).collect()
}

/// RFC 1123 labels, lower case only so that one org has one spelling.
fn is_dns_like(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// What kind of thing a server offers. The order is that in which kinds are kept when there is no room for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// The server itself: what it says of itself, and requests that concern none of its items. Its name is the server's.
    #[n(0)]
    Server,
    /// A tool, by its name.
    #[default]
    #[n(1)]
    Tool,
    /// A prompt, by its name.
    #[n(2)]
    Prompt,
    /// A template of resources, by its URI template.
    #[n(3)]
    Template,
    /// A resource, by its URI.
    #[n(4)]
    Resource,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 5] = [Self::Server, Self::Tool, Self::Prompt, Self::Template, Self::Resource];

    /// The word in reports and in the text form of a [`CapabilityId`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Template => "template",
            Self::Resource => "resource",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What can be asked of a node: `org / server / item`. The text form of a tool is `org/server/name`, of anything else
/// `kind:org/server/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct CapabilityId {
    /// The org whose node serves it.
    #[n(0)]
    pub org: OrgName,
    /// The server, as that node names it.
    #[n(1)]
    pub server: ServerName,
    /// What kind of item it is.
    #[n(2)]
    pub kind: Kind,
    /// The item, as that server names it.
    #[n(3)]
    pub name: ItemName,
}

impl CapabilityId {
    /// The server that offers it, as a capability of its own.
    pub fn server_itself(&self) -> Self {
        Self::of_server(self.org.clone(), self.server.clone())
    }

    /// The server `server` of `org` itself.
    pub fn of_server(org: OrgName, server: ServerName) -> Self {
        let name = ItemName::from(&server);
        Self { org, server, kind: Kind::Server, name }
    }
}

/// A server's name is a name of an item too: of itself.
impl From<&ServerName> for ItemName {
    fn from(server: &ServerName) -> Self {
        Self(Arc::clone(&server.0))
    }
}

/// Reads the text form. Only an item's name may have a slash in it, and no org's name has a colon.
impl FromStr for CapabilityId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let prefixed = |kind: &Kind| Some((*kind, text.strip_prefix(kind.as_str())?.strip_prefix(':')?));
        let (kind, path) = Kind::ALL.iter().find_map(prefixed).unwrap_or((Kind::Tool, text));
        let mut parts = path.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self { org: part().parse()?, server: part().parse()?, kind, name: part().parse()? })
    }
}

impl fmt::Display for CapabilityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != Kind::Tool {
            write!(f, "{}:", self.kind)?;
        }
        write!(f, "{}/{}/{}", self.org, self.server, self.name)
    }
}

/// Defines a 32-byte BLAKE3 digest in a domain of its own, so that one kind can never pass for another.
macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $context:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest of `bytes` in this type's domain (BLAKE3 `derive_key` mode).
            pub fn of(bytes: &[u8]) -> Self {
                Self(blake3::derive_key($context, bytes))
            }

            /// A digest that was computed elsewhere.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The digest's bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first eight hexadecimal digits, for tables.
            pub fn short(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "blake3:{}", data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let refuse = || IdError::Digest(shorten(text));
                let hex = text.strip_prefix("blake3:").filter(|hex| hex.len() == 64).ok_or_else(refuse)?;
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).map_err(|_| refuse())?;
                bytes.try_into().map(Self).map_err(|_| refuse())
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                fixed_bytes(d).map(Self)
            }
        }
    };
}

digest!(
    /// The digest of an org's first root: what another org pins.
    RootHash,
    "comity 2026 org root"
);
digest!(
    /// The digest of a contract in canonical form: the same tool on two nodes has the same one.
    ContractDigest,
    "comity 2026 contract"
);
digest!(
    /// The digest of bytes that are pulled by digest: an offer set, or a tool's whole descriptor.
    BlobDigest,
    "comity 2026 blob"
);
digest!(
    /// The digest of a catalogue as clients see it.
    CatalogueDigest,
    "comity 2026 catalogue"
);
digest!(
    /// The digest of a signed object's bytes as received.
    ObjectDigest,
    "comity 2026 signed object"
);
digest!(
    /// The digest of a request's or a result's raw JSON, as a receipt states it.
    PayloadDigest,
    "comity 2026 payload"
);

/// One call, for logs, receipts and duplicates: 128 random bits minted by the caller's node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId([u8; 16]);

impl CallId {
    /// A call id of these bytes; the shell draws them at random.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({self})")
    }
}

impl<C> Encode<C> for CallId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for CallId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        fixed_bytes(d).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_reads_back_what_it_shows() {
        let id = NodeId::from_bytes([7; 32]);
        assert!(id.to_string().starts_with("12D3KooW"));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn the_text_of_a_node_id_is_what_base58_makes_of_it() {
        let mut bytes = [0; 32];
        for round in 0..200_u8 {
            bytes = *blake3::hash(&bytes).as_bytes();
            let edge = [[0; 32], [0xff; 32], bytes][usize::from(round.min(2))];
            let node = NodeId::from_bytes(edge);
            assert_eq!(node.to_string(), bs58::encode(node.to_peer_id_bytes()).into_string());
        }
    }

    #[test]
    fn what_is_no_node_id_is_refused() {
        for text in ["", "12D3KooW", "not base58 0OIl", &"1".repeat(100_000)] {
            assert!(matches!(text.parse::<NodeId>(), Err(IdError::Node(_))), "{}", shorten(text));
        }
    }

    #[test]
    fn names_are_parsed_strictly() {
        for good in ["acme.example", "a", "x-1.y"] {
            assert!(good.parse::<OrgName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "a..b", "-a", "a-", "Acme.example", "a_b", &"a".repeat(64)] {
            assert!(bad.parse::<OrgName>().is_err(), "{bad}");
        }
        assert!("time_2-x".parse::<ServerName>().is_ok());
        assert!("a.b".parse::<ServerName>().is_err());
        assert!("a\nb".parse::<ItemName>().is_err());
    }

    #[test]
    fn capabilities_of_every_kind_read_back_from_their_text() {
        for text in [
            "acme.example/time/now",
            "acme.example/time/a/b:c",
            "prompt:acme.example/time/now",
            "resource:acme.example/files/file:///a/b",
            "template:acme.example/files/file:///{path}",
            "server:acme.example/time/time",
        ] {
            let capability: CapabilityId = text.parse().unwrap();
            assert_eq!(capability.to_string(), text);
        }
        let tool: CapabilityId = "acme.example/time/now".parse().unwrap();
        assert_eq!(tool.server_itself().to_string(), "server:acme.example/time/time");
        for bad in
            ["", "acme.example", "acme.example/time", "other:acme.example/a/b", "prompt:acme.example/a"]
        {
            assert!(bad.parse::<CapabilityId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_of_one_input_differ_by_domain() {
        assert_ne!(RootHash::of(b"x").as_bytes(), BlobDigest::of(b"x").as_bytes());
        let digest = RootHash::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("blake3:12".parse::<RootHash>().is_err());
    }
}
