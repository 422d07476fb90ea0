//! How entries get their names: in rounds, until no two want the same.

use std::collections::BTreeMap;

use crate::ids::Kind;

use super::{Group, GroupKey, Nameless};

/// Longest exposed name, in bytes: clients allow 64 characters, some with a prefix of their own.
pub const EXPOSED_NAME_BYTES_MAX: usize = 60;

/// How the names of Comity's own tools begin; nobody else's does.
pub const RESERVED_PREFIX: &str = "comity_";

/// Digits of a name's hash: 50 bits, so that names meet by chance in no catalogue. Names that meet by intent move on
/// to another round with another hash.
const HASH_DIGITS: usize = 10;

/// RFC 4648 base 32, in lower case here: no 0, 1 or 8 to mistake for o, l or b.
const ALPHABET: data_encoding::Encoding = data_encoding::BASE32_NOPAD;

/// How specific a name is. Every further round after the last makes another hash.
const PLAIN: u32 = 0;
const WITH_SERVER: u32 = 1;
const WITH_ORG: u32 = 2;
const WITH_HASH: u32 = 3;

/// A name for each of `groups`, in their order. Variants begin at the name with a hash.
///
/// Every round moves each entry whose name is reserved or wanted twice to the next level. A name with a hash is wanted
/// twice only if two hashes of 50 bits agree, and each round draws new ones, so the rounds end.
pub(super) fn assign(groups: &[Nameless<'_>]) -> Vec<String> {
    let mut wishes: Vec<Wish> = groups.iter().map(Wish::new).collect();
    loop {
        let clashing = clashes(&wishes);
        if clashing.is_empty() {
            return wishes.into_iter().map(|wish| wish.name).collect();
        }
        for at in clashing {
            wishes[at].move_on(&groups[at]);
        }
    }
}

/// What one entry wants to be called in this round.
struct Wish {
    level: u32,
    name: String,
}

impl Wish {
    fn new(of: &Nameless<'_>) -> Self {
        let level = if of.main { PLAIN } else { WITH_HASH };
        Self { level, name: name_at(level, of.key, of.group) }
    }

    fn move_on(&mut self, of: &Nameless<'_>) {
        self.level += 1;
        self.name = name_at(self.level, of.key, of.group);
    }
}

/// The indices of those that cannot keep their name.
fn clashes(wishes: &[Wish]) -> Vec<usize> {
    let mut holders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, wish) in wishes.iter().enumerate() {
        holders.entry(&wish.name).or_default().push(at);
    }
    let clashing = |(name, holders): &(&str, Vec<usize>)| holders.len() > 1 || is_reserved(name);
    holders.into_iter().filter(clashing).flat_map(|(_, holders)| holders).collect()
}

fn is_reserved(name: &str) -> bool {
    let head = name.as_bytes().get(..RESERVED_PREFIX.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(RESERVED_PREFIX.as_bytes()))
}

fn name_at(level: u32, key: &GroupKey, group: &Group) -> String {
    let (server, org) = (key.server.as_str(), group.home.1.as_str());
    let prefix = match level {
        PLAIN => String::new(),
        WITH_SERVER => sanitise(server, key.kind),
        WITH_ORG.. => sanitise(&format!("{org}_{server}"), key.kind),
    };
    let item = sanitise(key.name.as_str(), key.kind);
    let full = join(&prefix, &item);
    if level < WITH_HASH && full.len() <= EXPOSED_NAME_BYTES_MAX {
        return full;
    }
    shorten(&prefix, &item, &hash(level, key))
}

/// `prefix__tool_hash` in the space there is: the tool's name is worth most, so the prefix gives way first. A prefix
/// that is reserved gives way altogether, or no round would ever end.
fn shorten(prefix: &str, tool: &str, hash: &str) -> String {
    let room = EXPOSED_NAME_BYTES_MAX - HASH_DIGITS - 1;
    let tool = &tool[..tool.len().min(room)];
    let prefix = &prefix[..prefix.len().min((room - tool.len()).saturating_sub(2))];
    let name = format!("{}_{hash}", join(prefix, tool));
    if is_reserved(&name) { format!("{hash}_{tool}") } else { name }
}

fn join(prefix: &str, tool: &str) -> String {
    if prefix.is_empty() { tool.to_owned() } else { format!("{prefix}__{tool}") }
}

/// Each character that clients do not allow becomes `_`; a name of which nothing readable is left becomes its kind's.
fn sanitise(text: &str, kind: Kind) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.chars().any(|c| c.is_ascii_alphanumeric()) {
        return kind.as_str().to_owned();
    }
    text.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// A hash of the item's identity, another one at each level.
pub(super) fn hash(level: u32, key: &GroupKey) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("comity 2026 exposed name");
    hasher.update(&level.to_be_bytes());
    let org = key.org.as_ref().map_or("", |org| org.as_str());
    for part in [key.server.as_str(), key.name.as_str(), org] {
        // Lengths first: no two identities make the same input.
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    hasher.update(key.contract.as_bytes()).update(&[key.pool as u8]);
    let mut text = ALPHABET.encode(&hasher.finalize().as_bytes()[..8]).to_ascii_lowercase();
    text.truncate(HASH_DIGITS);
    text
}
