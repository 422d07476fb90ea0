//! What a change in the mesh costs a node whose clients see many tools: the whole catalogue of 3,000, built anew.
//!
//! Goal: under 20 milliseconds, so that a burst of changes never delays a call.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use comity_protocol::approval::Judgement;
use comity_protocol::catalogue::{Catalogue, Offered, Origin, Pool};
use comity_protocol::contract::Descriptor;
use comity_protocol::ids::{CapabilityId, Kind, NodeId};

const TOOLS: usize = 3000;

/// A descriptor of about two kilobytes, as tools with a dozen parameters have.
fn text(tool: &str, contract: usize) -> String {
    let properties: Vec<_> = (0..12)
        .map(|n| format!(r#""p{n}":{{"type":"string","description":"{}"}}"#, "what it is for ".repeat(7)))
        .collect();
    let properties = properties.join(",");
    format!(
        r#"{{"name":"{tool}","description":"tool {contract}","inputSchema":{{"type":"object","properties":{{{properties}}}}}}}"#
    )
}

/// Offers of ten orgs; `names` different tool names, so that fewer names mean more clashes.
fn offers(names: usize) -> Vec<Offered> {
    let offer = |n: usize| {
        let tool = format!("tool_{}", n % names);
        Offered {
            node: NodeId::from_bytes(*blake3::hash(&n.to_be_bytes()).as_bytes()),
            capability: CapabilityId {
                org: format!("org{}.example", n % 10).parse().expect("a name"),
                server: format!("server{}", n % 50).parse().expect("a name"),
                kind: Kind::Tool,
                name: tool.parse().expect("a name"),
            },
            descriptor: Arc::new(Descriptor::parse(Kind::Tool, &text(&tool, n)).expect("a descriptor")),
            origin: Origin::Foreign,
            pool: Pool::Anywhere,
            judgement: Judgement::Approved,
        }
    };
    (0..TOOLS).map(offer).collect()
}

fn catalogue(c: &mut Criterion) {
    for (what, names) in [("all names plain", TOOLS), ("every name clashes", TOOLS / 30)] {
        let offers = offers(names);
        c.bench_function(&format!("build a catalogue of {TOOLS}, {what}"), |b| {
            b.iter_batched(|| offers.clone(), Catalogue::build, BatchSize::LargeInput);
        });
    }
    let text = text("tool", 1);
    c.bench_function("parse a descriptor of 2 kB and hash its contract", |b| {
        b.iter(|| Descriptor::parse(Kind::Tool, &text))
    });
}

criterion_group!(benches, catalogue);
criterion_main!(benches);
