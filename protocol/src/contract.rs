//! The descriptor of an item (a tool, a prompt, a resource, a template, or the server itself) as its server wrote it,
//! and the contract that is hashed out of it.
//!
//! The descriptor is kept byte for byte, vendor keys included, because clients are shown it unchanged. The *contract*
//! is the part that an operator approves and that decides whether two nodes offer the same thing: the canonical JSON
//! ([`json::canonical`]) of an object with exactly the keys of [`contract_keys`] that the descriptor has; for any kind but
//! a tool with the kind's name and a line feed before it, so that no contract of one kind passes for one of another. A
//! key that is absent stays absent, so a tool without a title and one whose title is `null` or empty have different
//! contracts. What changes with every reading (a resource's size, when it was last modified) is no part of it.
//!
//! A descriptor is refused when a strict MCP client would choke on it: such a client throws away the *whole* list, so
//! one bad item would hide everybody else's.

use core::fmt;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::advert::{DESCRIPTOR_BYTES_MAX, Offer};
use crate::ids::{BlobDigest, CALLED_NAME_BYTES_MAX, ContractDigest, ItemName, Kind};
use crate::json::{self, JsonError, RawObject};

/// What a contract is made of (DESIGN, section 1): these keys of the object and no others.
pub const fn contract_keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Tool => &["name", "title", "description", "inputSchema", "outputSchema", "annotations"],
        Kind::Prompt => &["name", "title", "description", "arguments"],
        Kind::Resource => &["uri", "name", "title", "description", "mimeType"],
        Kind::Template => &["uriTemplate", "name", "title", "description", "mimeType"],
        Kind::Server => &["name", "capabilities", "instructions"],
    }
}

/// The key under which an object of this kind has the name that it is asked for by.
pub const fn name_key(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool | Kind::Prompt | Kind::Server => "name",
        Kind::Resource => "uri",
        Kind::Template => "uriTemplate",
    }
}

/// How deeply a descriptor may nest. Real schemas stay under 20; clients' own parsers give up at about 100.
pub const DESCRIPTOR_DEPTH_MAX: usize = 64;

/// Why a descriptor was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Too large, too deep, not UTF-8, not JSON, not an object, or with a key twice at any level.
    #[error("the descriptor is refused: {0}")]
    Json(#[from] JsonError),
    /// No name at all, or a URI that is none.
    #[error("the descriptor has no usable `{0}`")]
    NameMissing(&'static str),
    /// A name that is empty, overlong or has control characters.
    #[error("the descriptor's name is refused: {0}")]
    Name(#[from] crate::ids::IdError),
    /// A key whose value is of a kind that MCP clients refuse.
    #[error("`{key}` of {item:?} must be {expected}")]
    Shape {
        /// The item.
        item: ItemName,
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// What was pulled is not what the offer promised.
    #[error("the descriptor of {item:?} is not the one that was offered: its {what} differs")]
    NotAsOffered {
        /// The item, as offered.
        item: ItemName,
        /// What differs.
        what: &'static str,
    },
}

/// An item's object that has been checked: its raw JSON, its name and its two digests. Cheap to clone.
#[derive(Clone)]
pub struct Descriptor {
    kind: Kind,
    name: ItemName,
    raw: Arc<RawValue>,
    contract: ContractDigest,
    blob: BlobDigest,
}

impl Descriptor {
    /// Reads the object of one item, at most [`DESCRIPTOR_BYTES_MAX`] bytes and [`DESCRIPTOR_DEPTH_MAX`] deep. Size and depth
    /// are checked before anything is decoded.
    ///
    /// # Errors
    /// [`DescriptorError`], which names what is wrong.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, DescriptorError> {
        let size = text.len();
        if size > DESCRIPTOR_BYTES_MAX {
            return Err(JsonError::TooLarge { size, max: DESCRIPTOR_BYTES_MAX }.into());
        }
        json::check_depth(text.as_bytes(), DESCRIPTOR_DEPTH_MAX)?;
        let raw: &RawValue = serde_json::from_str(text).map_err(JsonError::from)?;
        let object = RawObject::parse(raw)?;
        let name = name_of(kind, &object)?;
        check_shape(kind, &object, &name)?;
        let contract = contract_of(kind, &object)?;
        Ok(Self {
            kind,
            name,
            contract,
            blob: BlobDigest::of(raw.get().as_bytes()),
            raw: raw.to_owned().into(),
        })
    }

    /// Reads what a peer sent for `offer`, and checks that it is what was promised: blob, contract and name.
    ///
    /// # Errors
    /// [`DescriptorError`].
    pub fn parse_offered(bytes: &[u8], offer: &Offer) -> Result<Self, DescriptorError> {
        let differs = |what| DescriptorError::NotAsOffered { item: offer.name.clone(), what };
        if bytes.len() > DESCRIPTOR_BYTES_MAX {
            return Err(JsonError::TooLarge { size: bytes.len(), max: DESCRIPTOR_BYTES_MAX }.into());
        }
        if BlobDigest::of(bytes) != offer.descriptor {
            return Err(differs("digest"));
        }
        let text = core::str::from_utf8(bytes)
            .map_err(|error| JsonError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
        let descriptor = Self::parse(offer.kind, text)?;
        // Spaces around the object are no part of it: what we keep would have another digest than what was pulled.
        if descriptor.blob != offer.descriptor {
            return Err(differs("digest"));
        }
        if descriptor.contract != offer.contract {
            return Err(differs("contract"));
        }
        if descriptor.name != offer.name {
            return Err(differs("name"));
        }
        Ok(descriptor)
    }

    /// What kind of item it describes.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The item's own name.
    pub const fn name(&self) -> &ItemName {
        &self.name
    }

    /// The object exactly as it was written.
    pub fn raw(&self) -> &RawValue {
        &self.raw
    }

    /// The same, shared.
    pub fn shared(&self) -> Arc<RawValue> {
        Arc::clone(&self.raw)
    }

    /// The digest of its contract.
    pub const fn contract(&self) -> ContractDigest {
        self.contract
    }

    /// The digest of [`Self::raw`]'s bytes, by which peers pull it.
    pub const fn blob(&self) -> BlobDigest {
        self.blob
    }

    /// The object under the name `exposed`. Every other value keeps its bytes and its place; when the name is the item's
    /// own the whole text stays as it is.
    pub fn renamed(&self, exposed: &str) -> Arc<RawValue> {
        if exposed == self.name.as_str() {
            return self.shared();
        }
        let mut object =
            RawObject::parse(&self.raw).expect("the text was parsed when the descriptor was made");
        object.set_str(name_key(self.kind), exposed);
        object.to_raw().into()
    }
}

/// Name and digests only: a descriptor may hold a quarter of a megabyte.
impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptor({} {:?} {:?} {:?})", self.kind, self.name, self.contract, self.blob)
    }
}

/// The name under which the item is asked for. A URI must be one that strict clients read.
fn name_of(kind: Kind, object: &RawObject) -> Result<ItemName, DescriptorError> {
    let missing = || DescriptorError::NameMissing(name_key(kind));
    let name: ItemName = object.get_str(name_key(kind)).ok_or_else(missing)?.parse()?;
    match kind {
        Kind::Tool | Kind::Prompt if name.as_str().len() > CALLED_NAME_BYTES_MAX => {
            Err(crate::ids::IdError::Item.into())
        }
        Kind::Resource if !is_uri(name.as_str()) => Err(missing()),
        _ => Ok(name),
    }
}

/// RFC 3986: a scheme, a colon, and no character that a URI cannot hold unescaped in any reading.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut scheme = scheme.bytes();
    scheme.next().is_some_and(|first| first.is_ascii_alphabetic())
        && scheme.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && !rest.chars().any(|c| c.is_whitespace() || matches!(c, '<' | '>' | '"'))
}

/// Hashes the contract, and walks everything else too, so that a key twice is refused wherever it stands.
fn contract_of(kind: Kind, object: &RawObject) -> Result<ContractDigest, JsonError> {
    let mut contract = RawObject::new();
    for (key, value) in object.iter() {
        if contract_keys(kind).contains(&key) {
            contract.set(key, value.to_owned());
        } else {
            json::canonical(value)?;
        }
    }
    let canonical = json::canonical(&contract.to_raw())?;
    Ok(match kind {
        Kind::Tool => ContractDigest::of(&canonical),
        kind => ContractDigest::of(&[kind.as_str().as_bytes(), b"\n", &canonical].concat()),
    })
}

/// The kinds that the MCP schema (2025-11-25 and 2026-07-28) gives to the keys that clients decode, whatever the item.
const KINDS: [(&str, char, &str); 11] = [
    ("title", '"', "a string"),
    ("description", '"', "a string"),
    ("mimeType", '"', "a string"),
    ("instructions", '"', "a string"),
    ("outputSchema", '{', "an object"),
    ("annotations", '{', "an object"),
    ("_meta", '{', "an object"),
    ("execution", '{', "an object"),
    ("capabilities", '{', "an object"),
    ("icons", '[', "an array"),
    ("arguments", '[', "an array"),
];

fn check_shape(kind: Kind, object: &RawObject, item: &ItemName) -> Result<(), DescriptorError> {
    let shape = |key, expected| Err(DescriptorError::Shape { item: item.clone(), key, expected });
    for (key, first, expected) in KINDS {
        if object.get(key).is_some_and(|value| !value.get().starts_with(first)) {
            return shape(key, expected);
        }
    }
    let is_string = |value: Option<&RawValue>| value.is_some_and(|value| value.get().starts_with('"'));
    match kind {
        Kind::Tool if !takes_an_object(object) => {
            shape("inputSchema", "an object whose `type` is \"object\"")
        }
        Kind::Prompt if !arguments_are_named(object) => shape("arguments", "objects with a `name`"),
        Kind::Resource | Kind::Template if !is_string(object.get("name")) => shape("name", "a string"),
        _ => Ok(()),
    }
}

fn takes_an_object(tool: &RawObject) -> bool {
    let input = tool.get("inputSchema").and_then(|schema| json::path(schema, &["type"]));
    input.and_then(json::as_str).as_deref() == Some("object")
}

fn arguments_are_named(prompt: &RawObject) -> bool {
    let Some(arguments) = prompt.get("arguments") else { return true };
    let arguments: Result<Vec<&RawValue>, _> = serde_json::from_str(arguments.get());
    let named = |argument: &&RawValue| json::path(argument, &["name"]).and_then(json::as_str).is_some();
    arguments.is_ok_and(|arguments| arguments.iter().all(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = r#"{"name":"now","title":"T","description":"D","inputSchema":{"type":"object","properties":{"a":{"type":"string"},"b":{}}},"outputSchema":{"type":"object"},"annotations":{"readOnlyHint":true},"x-vendor":{"n":1e400}}"#;

    fn contract(text: &str) -> ContractDigest {
        Descriptor::parse(Kind::Tool, text).unwrap().contract()
    }

    fn refusal(text: &str) -> String {
        Descriptor::parse(Kind::Tool, text).unwrap_err().to_string()
    }

    /// The tool with `members` written after a name and an input schema.
    fn with(members: &str) -> String {
        format!(r#"{{"name":"now","inputSchema":{{"type":"object"}}{members}}}"#)
    }

    #[test]
    fn the_text_is_kept_exactly_and_its_digest_is_of_it() {
        let descriptor = Descriptor::parse(Kind::Tool, TOOL).unwrap();
        assert_eq!(descriptor.raw().get(), TOOL);
        assert_eq!(descriptor.blob(), BlobDigest::of(TOOL.as_bytes()));
        assert_eq!(descriptor.name().as_str(), "now");
    }

    #[test]
    fn order_spaces_escapes_and_vendor_keys_leave_the_contract_alone() {
        let shuffled = r#"{ "annotations" : {"readOnlyHint":true}, "description":"\u0044", "outputSchema":{"type":"object"},
            "inputSchema":{"properties":{"b":{},"a":{"type":"string"}},"type":"object"}, "title":"T", "name":"now",
            "_meta":{"other":true}, "icons":[], "execution":{} }"#;
        assert_eq!(contract(TOOL), contract(shuffled));
        assert_ne!(
            Descriptor::parse(Kind::Tool, TOOL).unwrap().blob(),
            Descriptor::parse(Kind::Tool, shuffled).unwrap().blob()
        );
    }

    #[test]
    fn each_of_the_six_keys_changes_the_contract() {
        for (from, to) in [
            (r#""name":"now""#, r#""name":"then""#),
            (r#""title":"T""#, r#""title":"t""#),
            (r#""title":"T","#, ""),
            (r#""description":"D""#, r#""description":"D ""#),
            (r#""b":{}"#, r#""b":{"type":"number"}"#),
            (r#""outputSchema":{"type":"object"}"#, r#""outputSchema":{}"#),
            (r#""readOnlyHint":true"#, r#""readOnlyHint":false"#),
        ] {
            let changed = TOOL.replace(from, to);
            assert_ne!(changed, TOOL, "{from} is in the text");
            assert_ne!(contract(TOOL), contract(&changed), "{from}");
        }
    }

    #[test]
    fn hostile_descriptors_are_refused_by_name() {
        let deep = format!(r#","x":{}{}"#, "[".repeat(10_000), "]".repeat(10_000));
        let huge = format!(r#","x":"{}""#, "a".repeat(DESCRIPTOR_BYTES_MAX));
        for (text, reason) in [
            (with(&deep), "nested more than"),
            (with(&huge), "exceed the limit"),
            (with(r#","x":1,"x":2"#), r#"duplicate key "x""#),
            (with(r#","name":"other""#), r#"duplicate key "name""#),
            (with(r#","x":[{"k":1,"k":1}]"#), r#"duplicate key "k""#),
            (with(r#","annotations":{"a":1,"\u0061":2}"#), r#"duplicate key "a""#),
            (with(r#","title":null"#), "`title`"),
            (with(r#","description":7"#), "`description`"),
            (with(r#","annotations":[]"#), "`annotations`"),
            (with(r#","icons":{}"#), "`icons`"),
            (r#"{"inputSchema":{"type":"object"}}"#.into(), "has no usable `name`"),
            (r#"{"name":7,"inputSchema":{"type":"object"}}"#.into(), "has no usable `name`"),
            (r#"{"name":"","inputSchema":{"type":"object"}}"#.into(), "name is refused"),
            (r#"{"name":"a\u001b[2J","inputSchema":{"type":"object"}}"#.into(), "name is refused"),
            (with("").replace("now", &"n".repeat(129)), "name is refused"),
            (r#"{"name":"now"}"#.into(), "`inputSchema`"),
            (r#"{"name":"now","inputSchema":{}}"#.into(), "`inputSchema`"),
            (r#"{"name":"now","inputSchema":[]}"#.into(), "`inputSchema`"),
            ("[]".into(), "expected an object"),
            ("{\"name\":\"now\"".into(), "EOF"),
            (String::new(), "EOF"),
        ] {
            let refused = refusal(&text);
            assert!(refused.contains(reason), "{refused} should say {reason}");
            assert!(refused.len() < 400, "a refusal does not repeat the input");
        }
    }

    #[test]
    fn a_new_name_leaves_every_other_value_as_it_was_written() {
        let descriptor = Descriptor::parse(Kind::Tool, TOOL).unwrap();
        let expected = TOOL.replace(r#""name":"now""#, r#""name":"time__now""#);
        assert_eq!(descriptor.renamed("time__now").get(), expected);
        assert!(Arc::ptr_eq(&descriptor.renamed("now"), &descriptor.shared()));
    }

    #[test]
    fn a_pulled_descriptor_must_be_the_one_that_was_offered() {
        let descriptor = Descriptor::parse(Kind::Tool, TOOL).unwrap();
        let offer = Offer {
            server: "time".parse().unwrap(),
            kind: Kind::Tool,
            name: "now".parse().unwrap(),
            contract: descriptor.contract(),
            descriptor: descriptor.blob(),
            class_max: crate::constraints::DataClass::Internal,
        };
        assert!(Descriptor::parse_offered(TOOL.as_bytes(), &offer).is_ok());
        let check = |bytes: &[u8], change: fn(&mut Offer)| {
            let mut offer = offer.clone();
            change(&mut offer);
            Descriptor::parse_offered(bytes, &offer).unwrap_err().to_string()
        };
        assert!(check(b"{}", |_| {}).contains("its digest differs"));
        assert!(
            check(TOOL.as_bytes(), |o| o.contract = ContractDigest::of(b"?"))
                .contains("its contract differs")
        );
        assert!(check(TOOL.as_bytes(), |o| o.name = "then".parse().unwrap()).contains("its name differs"));
        let padded = format!("{TOOL} ");
        let mut trailing = offer.clone();
        trailing.descriptor = BlobDigest::of(padded.as_bytes());
        let refused = Descriptor::parse_offered(padded.as_bytes(), &trailing).unwrap_err();
        assert!(refused.to_string().contains("its digest differs"));
        let not_text = [0xff_u8; 4];
        trailing.descriptor = BlobDigest::of(&not_text);
        assert!(Descriptor::parse_offered(&not_text, &trailing).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn each_kind_has_its_own_name_and_its_own_contract() {
        let parse = |kind, text: &str| Descriptor::parse(kind, text).unwrap();
        let prompt = r#"{"name":"p","arguments":[{"name":"a","required":true}],"x-vendor":1e400}"#;
        let resource = r#"{"uri":"file:///a","name":"a","size":1,"annotations":{"lastModified":"2026"}}"#;
        let template = r#"{"uriTemplate":"file:///{path}","name":"files"}"#;
        let server = r#"{"name":"s","capabilities":{"prompts":{}},"instructions":"Be kind.","serverInfo":{"version":"1"}}"#;
        for (kind, text, name, exposed) in [
            (Kind::Prompt, prompt, "p", r#"{"name":"s__p","#),
            (Kind::Resource, resource, "file:///a", r#"{"uri":"s__p","#),
            (Kind::Template, template, "file:///{path}", r#"{"uriTemplate":"s__p","#),
            (Kind::Server, server, "s", r#"{"name":"s__p","#),
        ] {
            let descriptor = parse(kind, text);
            assert_eq!(
                (descriptor.kind(), descriptor.name().as_str(), descriptor.raw().get()),
                (kind, name, text)
            );
            assert!(descriptor.renamed("s__p").get().starts_with(exposed), "{kind}");
        }
        let contract = |kind, text: &str| parse(kind, text).contract();
        let larger = resource.replace(r#""size":1"#, r#""size":2"#).replace("2026", "2027");
        assert_eq!(contract(Kind::Resource, resource), contract(Kind::Resource, &larger));
        let newer = server.replace(r#""version":"1""#, r#""version":"2""#);
        assert_eq!(contract(Kind::Server, server), contract(Kind::Server, &newer));
        let ruder = server.replace("kind", "rude");
        assert_ne!(contract(Kind::Server, server), contract(Kind::Server, &ruder));
        let bare = r#"{"name":"s"}"#;
        assert_ne!(contract(Kind::Server, bare), contract(Kind::Prompt, bare));
    }

    #[test]
    fn what_strict_clients_would_choke_on_is_refused_in_every_kind() {
        for (kind, text, reason) in [
            (Kind::Prompt, r#"{"name":"p","arguments":{}}"#.to_owned(), "`arguments`"),
            (Kind::Prompt, r#"{"name":"p","arguments":[{"title":"a"}]}"#.into(), "`arguments`"),
            (Kind::Prompt, format!(r#"{{"name":"{}"}}"#, "p".repeat(129)), "name is refused"),
            (Kind::Resource, r#"{"name":"a"}"#.into(), "no usable `uri`"),
            (Kind::Resource, r#"{"uri":"no uri","name":"a"}"#.into(), "no usable `uri`"),
            (Kind::Resource, r#"{"uri":"file:///a b","name":"a"}"#.into(), "no usable `uri`"),
            (Kind::Resource, r#"{"uri":"file:///a"}"#.into(), "`name`"),
            (
                Kind::Resource,
                format!(r#"{{"uri":"file:///{}","name":"a"}}"#, "x".repeat(1020)),
                "name is refused",
            ),
            (Kind::Template, r#"{"uriTemplate":7,"name":"a"}"#.into(), "no usable `uriTemplate`"),
            (Kind::Template, r#"{"uriTemplate":"f:{x}","name":"a","mimeType":null}"#.into(), "`mimeType`"),
            (Kind::Server, r#"{"name":"s","capabilities":[]}"#.into(), "`capabilities`"),
        ] {
            let refused = Descriptor::parse(kind, &text).unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused} should say {reason}");
        }
    }
}
