//! Tools of the node's own, for catalogues too large to list: one that finds tools by words, one that calls what was
//! found.
//!
//! A model that sees three hundred tools pays for their descriptions with every message. Where an endpoint defers, its
//! clients see these two instead, and the descriptions of what they looked for.

use std::{
    cmp::Reverse,
    sync::{Arc, OnceLock},
};

use comity_protocol::{
    approval::Judgement,
    catalogue::{Catalogue, CatalogueEntry, Offered, Origin, Pool},
    contract::Descriptor,
    ids::{CapabilityId, ItemName, Kind, NodeId},
    json::{self, RawObject},
    jsonrpc::RpcError,
};
use serde_json::{json, value::RawValue};

use super::params;
use crate::gateway::Era;

/// Finds tools.
pub(super) const FIND: &str = "comity_find_tools";
/// Calls what was found.
pub(super) const CALL: &str = "comity_call_tool";

/// Tools in one answer unless the client says otherwise, and at most.
const FOUND_DEFAULT: usize = 8;
const FOUND_MAX: usize = 50;

/// Bytes of a query, and words of it that count.
const QUERY_BYTES_MAX: usize = 1024;
const WORDS_MAX: usize = 16;

/// Bytes of tools in one answer, at most, unless a single tool is larger.
const FOUND_BYTES_MAX: usize = 256 * 1024;

/// What a word is worth where it is found.
const IN_NAME: u32 = 8;
const PART_OF_NAME: u32 = 4;
const IN_TEXT: u32 = 2;
const PART_OF_TEXT: u32 = 1;

/// Shorter words are looked for as a whole only: they are a part of nearly everything.
const PART_BYTES_MIN: usize = 3;

const TOOLS: [&str; 2] = [
    r#"{"name":"comity_find_tools","title":"Find tools","description":"Finds tools by words. This server has too many tools to list: describe in a few words what you want to do, and get the tools that fit best with their input schemas. Then call one with comity_call_tool.","inputSchema":{"type":"object","properties":{"query":{"type":"string","description":"Words that the tool's name or description may contain, such as \"invoice search\""},"limit":{"type":"integer","minimum":1,"maximum":50,"description":"How many tools to return; 8 if absent"}},"required":["query"]},"outputSchema":{"type":"object","properties":{"tools":{"type":"array","items":{"type":"object"}},"matching":{"type":"integer"},"total":{"type":"integer"}},"required":["tools","matching","total"]},"annotations":{"readOnlyHint":true,"openWorldHint":false}}"#,
    r#"{"name":"comity_call_tool","title":"Call a tool","description":"Calls a tool that comity_find_tools has found, and gives its result unchanged.","inputSchema":{"type":"object","properties":{"name":{"type":"string","description":"The tool's name as comity_find_tools gave it"},"arguments":{"type":"object","description":"The tool's arguments, by its input schema"}},"required":["name"]}}"#,
];

/// The two tools, as a catalogue.
pub(super) fn own_tools() -> Arc<Catalogue> {
    static OWN: OnceLock<Arc<Catalogue>> = OnceLock::new();
    OWN.get_or_init(|| Arc::new(Catalogue::passthrough(TOOLS.map(offer)))).clone()
}

fn offer(text: &str) -> Offered {
    let descriptor = Descriptor::parse(Kind::Tool, text).expect("our own tool");
    let name: ItemName = descriptor.name().clone();
    let (org, server) = ("comity".parse().expect("a name"), "comity".parse().expect("a name"));
    Offered {
        node: NodeId::from_bytes([0; 32]),
        capability: CapabilityId { org, server, kind: Kind::Tool, name },
        descriptor: Arc::new(descriptor),
        origin: Origin::ThisNode,
        pool: Pool::ThisNode,
        judgement: Judgement::Approved,
    }
}

/// The result of `comity_find_tools`.
///
/// # Errors
/// `-32602` for arguments that make no sense.
pub(super) fn find(
    catalogue: &Catalogue,
    arguments: Option<&RawValue>,
    era: Era,
) -> Result<Box<RawValue>, RpcError> {
    let query = arguments.and_then(|arguments| json::path(arguments, &["query"])).and_then(json::as_str);
    let query = query.filter(|query| query.len() <= QUERY_BYTES_MAX);
    let query = query.ok_or_else(|| params::invalid("`query` must be a string of at most 1024 bytes"))?;
    let limit = arguments.and_then(|arguments| json::path(arguments, &["limit"]));
    let limit = match limit {
        None => FOUND_DEFAULT,
        Some(limit) => {
            let number = limit.get().parse().ok().filter(|limit| (1..=FOUND_MAX).contains(limit));
            number.ok_or_else(|| params::invalid("`limit` must be a number from 1 to 50"))?
        }
    };
    let ranked = rank(catalogue.of_kind(Kind::Tool), &query);
    let (matching, total) = (ranked.len(), catalogue.of_kind(Kind::Tool).len());
    let mut bytes = 0;
    let fits = |entry: &&&CatalogueEntry| {
        let first = bytes == 0;
        bytes += entry.object.get().len();
        first || bytes <= FOUND_BYTES_MAX
    };
    let tools: Vec<&str> =
        ranked.iter().take(limit).take_while(fits).map(|entry| entry.object.get()).collect();
    let found = format!(r#"{{"tools":[{}],"matching":{matching},"total":{total}}}"#, tools.join(","));
    let content = json::to_raw(&json!([{ "type": "text", "text": found }]));
    let mut result = RawObject::new();
    result.set("content", content);
    result.set("structuredContent", RawValue::from_string(found).expect("tools are JSON"));
    if era == Era::Modern {
        result.set_str("resultType", "complete");
    }
    Ok(result.to_raw())
}

/// The tools in which a word of `query` is found: those with the most first, equal ones by name. A word counts the more
/// the fewer tools have it, so that small words decide nothing.
fn rank<'a>(tools: &'a [CatalogueEntry], query: &str) -> Vec<&'a CatalogueEntry> {
    let mut wanted: Vec<String> = words(query).take(WORDS_MAX).collect();
    wanted.sort();
    wanted.dedup();
    let scores: Vec<Vec<u32>> = tools.iter().map(|tool| scores(tool, &wanted)).collect();
    let rarity = |word: usize| {
        let having = scores.iter().filter(|scores| scores[word] > 0).count();
        (tools.len() / having.max(1)).checked_ilog2().unwrap_or_default()
    };
    let rarities: Vec<u32> = (0..wanted.len()).map(rarity).collect();
    let weighed = scores.iter().map(|scores| {
        scores.iter().zip(&rarities).map(|(score, rarity)| score * (1 + 2 * rarity)).sum::<u32>()
    });
    let mut ranked: Vec<_> = weighed.zip(tools).filter(|(score, _)| *score > 0).collect();
    ranked.sort_by(|(a, one), (b, other)| (Reverse(a), &one.name).cmp(&(Reverse(b), &other.name)));
    ranked.into_iter().map(|(_, tool)| tool).collect()
}

/// What each wanted word is worth in a tool.
fn scores(tool: &CatalogueEntry, wanted: &[String]) -> Vec<u32> {
    let name: Vec<String> = words(&tool.name).collect();
    let said = |key: &str| json::path(&tool.object, &[key]).and_then(json::as_str).unwrap_or_default();
    let text: Vec<String> = words(&said("title")).chain(words(&said("description"))).collect();
    let worth = |word: &String, among: &[String], whole: u32, part: u32| {
        let is_part = |text: &String| word.len() >= PART_BYTES_MIN && text.contains(word.as_str());
        if among.contains(word) {
            whole
        } else if among.iter().any(is_part) {
            part
        } else {
            0
        }
    };
    let one =
        |word: &String| worth(word, &name, IN_NAME, PART_OF_NAME) + worth(word, &text, IN_TEXT, PART_OF_TEXT);
    wanted.iter().map(one).collect()
}

/// Runs of letters and digits, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

/// The params of the call that `comity_call_tool` is to make, and the tool's name. What else the client said, `_meta`
/// among it, stays.
///
/// # Errors
/// `-32602` for arguments that make no sense.
pub(super) fn unwrapped(whole: &RawValue) -> Result<(String, Box<RawValue>), RpcError> {
    let wrong = |error: json::JsonError| params::invalid(error.to_string());
    let mut whole = RawObject::parse(whole).map_err(wrong)?;
    let inner = whole.get_object("arguments").map_err(wrong)?.unwrap_or_default();
    let name = inner.get_str("name").ok_or_else(|| params::invalid("`name` must be a string"))?.into_owned();
    whole.set_str("name", &name);
    let arguments = inner.get("arguments").map(RawValue::to_owned);
    whole.set("arguments", arguments.unwrap_or_else(|| RawObject::new().to_raw()));
    Ok((name, whole.to_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::tests::catalogue_of;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn found(tools: &[(&str, &str)], arguments: &str) -> Vec<String> {
        let result = find(&catalogue_of(tools), Some(&raw(arguments)), Era::Legacy).unwrap();
        let result: serde_json::Value = serde_json::from_str(result.get()).unwrap();
        let text: serde_json::Value =
            serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"]);
        let tools = result["structuredContent"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_best_come_first_and_the_same_every_time() {
        let tools = [
            ("crm__find_invoice", "Finds an invoice by its number"),
            ("invoices_list", "Lists what was billed"),
            ("mail_send", "Sends mail, with an invoice attached if there is one"),
            ("weather", "What the weather is like"),
        ];
        let expected = ["crm__find_invoice", "invoices_list", "mail_send"];
        assert_eq!(found(&tools, r#"{"query":"Invoice"}"#), expected);
        assert_eq!(found(&tools, r#"{"query":"find INVOICE!"}"#), expected);
        assert_eq!(found(&tools, r#"{"query":"invoice","limit":1}"#), expected[..1]);
        let small = found(&tools, r#"{"query":"what is there in it to send?"}"#);
        assert_eq!(small[0], "mail_send", "{small:?}");
        assert!(found(&tools, r#"{"query":"zeppelin"}"#).is_empty());
        assert!(found(&tools, r#"{"query":"?"}"#).is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let long = format!(r#"{{"query":"{}"}}"#, "x".repeat(QUERY_BYTES_MAX + 1));
        for arguments in
            ["{}", r#"{"query":7}"#, r#"{"query":"a","limit":0}"#, r#"{"query":"a","limit":51}"#, &long]
        {
            assert!(find(&Catalogue::default(), Some(&raw(arguments)), Era::Legacy).is_err(), "{arguments}");
        }
        assert!(find(&Catalogue::default(), None, Era::Legacy).is_err());
        for whole in ["{}", "[]", r#"{"arguments":{}}"#, r#"{"arguments":{"name":7}}"#] {
            assert!(unwrapped(&raw(whole)).is_err(), "{whole}");
        }
    }

    #[test]
    fn the_call_inside_is_taken_out_and_all_else_stays() {
        let whole = r#"{"_meta":{"progressToken":7},"name":"comity_call_tool","arguments":{"name":"a","arguments":{"n":1e400}},"x":1.0}"#;
        let (name, params) = unwrapped(&raw(whole)).unwrap();
        assert_eq!(name, "a");
        assert_eq!(
            params.get(),
            r#"{"_meta":{"progressToken":7},"name":"a","arguments":{"n":1e400},"x":1.0}"#
        );
    }

    #[test]
    fn our_own_tools_can_be_listed() {
        let own = own_tools();
        let names: Vec<_> = own.of_kind(Kind::Tool).iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, [CALL, FIND]);
    }
}
