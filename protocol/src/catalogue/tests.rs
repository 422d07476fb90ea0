use proptest::prelude::*;

use super::*;

const OWN: &str = "acme.example";

/// An offer of `org/server/tool` whose contract is made of `contract`, by node `node`.
fn offer(node: u8, path: &str, contract: &str) -> Offered {
    let (org, rest) = path.split_once('/').expect("org/server/tool");
    let (server, tool) = rest.split_once('/').expect("org/server/tool");
    let name = serde_json::to_string(tool).unwrap();
    let text = format!(r#"{{"name":{name},"description":"{contract}","inputSchema":{{"type":"object"}}}}"#);
    Offered {
        node: NodeId::from_bytes([node; 32]),
        capability: CapabilityId {
            org: org.parse().unwrap(),
            server: server.parse().unwrap(),
            kind: Kind::Tool,
            name: tool.parse().unwrap(),
        },
        descriptor: Arc::new(Descriptor::parse(Kind::Tool, &text).unwrap()),
        origin: if org == OWN { Origin::OwnOrg } else { Origin::Foreign },
        pool: Pool::Anywhere,
        judgement: Judgement::Approved,
    }
}

fn changed(mut offer: Offered, change: impl FnOnce(&mut Offered)) -> Offered {
    change(&mut offer);
    offer
}

/// What each name of the catalogue stands for.
fn names(offers: Vec<Offered>) -> BTreeMap<String, Vec<String>> {
    let shown = |entry: &CatalogueEntry| entry.capabilities.iter().map(ToString::to_string).collect();
    Catalogue::build(offers).entries().iter().map(|entry| (entry.name.clone(), shown(entry))).collect()
}

/// Checks which names the offers of `paths`, each with a contract of its own, come to have.
fn check_names(paths: &[&str], expected: &[&str]) {
    let offers = paths.iter().enumerate().map(|(n, path)| offer(n as u8, path, path)).collect();
    let got: Vec<_> = names(offers).into_keys().collect();
    assert_eq!(got, expected, "for {paths:?}");
}

#[test]
fn one_contract_under_one_server_name_is_one_tool_across_orgs() {
    let same = ["acme.example/time/now", "beta.example/time/now", "gamma.example/time/now"];
    let offers: Vec<_> = (1..).zip(same).map(|(node, path)| offer(node, path, "v1")).collect();
    assert_eq!(names(offers), [("now".to_owned(), same.map(String::from).to_vec())].into());
}

#[test]
fn only_what_is_approved_is_shown() {
    let quarantine =
        Judgement::Quarantined { approved: ContractDigest::of(b"a"), seen: ContractDigest::of(b"b") };
    for judgement in [Judgement::Unapproved, quarantine] {
        let hidden = changed(offer(2, "beta.example/time/now", "v2"), |o| o.judgement = judgement);
        let catalogue = Catalogue::build([offer(1, "acme.example/time/now", "v1"), hidden]);
        assert_eq!(catalogue.entries().len(), 1);
        assert_eq!(catalogue.entries()[0].name, "now", "what is hidden causes no clash either");
    }
}

#[test]
fn names_are_as_short_as_clashes_allow() {
    check_names(&["acme.example/time/now", "acme.example/files/read"], &["now", "read"]);
    check_names(&["acme.example/time/now", "acme.example/clock/now"], &["clock__now", "time__now"]);
    check_names(
        &["acme.example/time/now", "beta.example/time/now"],
        &["acme_example_time__now", "beta_example_time__now"],
    );
    check_names(
        &["acme.example/time/now", "beta.example/time/now", "beta.example/clock/now"],
        &["acme_example_time__now", "beta_example_time__now", "clock__now"],
    );
}

#[test]
fn a_name_that_looks_qualified_is_no_trap() {
    // The third tool is really called what the first would become.
    check_names(
        &["acme.example/time/now", "acme.example/clock/now", "acme.example/other/time__now"],
        &["acme_example_time__now", "clock__now", "other__time__now"],
    );
}

#[test]
fn the_reserved_names_stay_free() {
    check_names(&["beta.example/jobs/comity_job_get"], &["jobs__comity_job_get"]);
    check_names(&["beta.example/jobs/COMITY_job_get"], &["jobs__COMITY_job_get"]);
    check_names(&["beta.example/comity_x/comity_job_get"], &["beta_example_comity_x__comity_job_get"]);
    let worst = names(vec![offer(1, "comity/x/comity_y", "v1")]);
    let name = worst.keys().next().unwrap();
    assert!(name.ends_with("_comity_y") && !name.starts_with("comity"), "{name}");
}

#[test]
fn other_characters_become_underscores() {
    check_names(&["acme.example/math/add.two numbers"], &["add_two_numbers"]);
    check_names(&["acme.example/math/add.x", "acme.example/maths/add_x"], &["math__add_x", "maths__add_x"]);
    check_names(&["acme.example/tokyo/取得"], &["tool"]);
    let twice = names(vec![offer(1, "acme.example/m/a.b", "v"), offer(1, "acme.example/m/a_b", "v")]);
    assert!(twice.keys().all(|name| name.starts_with("acme_example_m__a_b_")), "{twice:?}");
}

#[test]
fn long_names_keep_their_tool_and_a_hash() {
    let tool = "t".repeat(100);
    let long = names(vec![offer(1, &format!("acme.example/s/{tool}"), "v1")]);
    let name = long.keys().next().unwrap();
    assert_eq!(name.len(), EXPOSED_NAME_BYTES_MAX);
    assert!(name.starts_with(&"t".repeat(49)), "{name}");
    let org = format!("{}.example", "o".repeat(60));
    let clash = names(vec![offer(1, "acme.example/s/now", "v1"), offer(2, &format!("{org}/s/now"), "v2")]);
    assert!(clash.keys().any(|name| name.starts_with("oooo") && name.contains("__now_")), "{clash:?}");
}

#[test]
fn while_a_capability_has_two_contracts_its_main_one_keeps_the_name() {
    let (old, new) = (
        |node| offer(node, "acme.example/time/now", "v1"),
        |node| offer(node, "acme.example/time/now", "v2"),
    );
    let shown = |offers: Vec<Offered>| Catalogue::build(offers).by_name("now").map(|entry| entry.contract);
    let (v1, v2) = (old(1).descriptor.contract(), new(1).descriptor.contract());
    assert_eq!(shown(vec![old(1), old(2), new(3)]), Some(v1), "most nodes");
    assert_eq!(shown(vec![old(1), new(2), new(3)]), Some(v2), "most nodes");
    let own = changed(new(3), |offer| offer.origin = Origin::ThisNode);
    let catalogue = Catalogue::build([old(1), old(2), own]);
    assert_eq!(catalogue.by_name("now").unwrap().contract, v2, "this node's own");
    assert_eq!(catalogue.entries().len(), 2, "the other is not lost");
    assert_eq!(catalogue.by_capability(&old(1).capability).count(), 2);
}

#[test]
fn a_foreign_upgrade_leaves_the_shared_entrys_name_alone() {
    let offers = vec![
        offer(1, "acme.example/time/now", "v1"),
        offer(2, "beta.example/time/now", "v1"),
        offer(3, "beta.example/time/now", "v2"),
        offer(4, "beta.example/time/now", "v2"),
    ];
    let got = names(offers);
    assert_eq!(got["now"], ["acme.example/time/now", "beta.example/time/now"]);
    assert_eq!(got.len(), 2);
}

#[test]
fn what_is_kept_apart_is_not_merged() {
    let git =
        |node, org: &str, pool| changed(offer(node, &format!("{org}/git/log"), "v1"), |o| o.pool = pool);
    let apart =
        vec![git(1, OWN, Pool::SameOrg), git(2, OWN, Pool::SameOrg), git(3, "beta.example", Pool::SameOrg)];
    let got = names(apart);
    assert_eq!(got.into_keys().collect::<Vec<_>>(), ["acme_example_git__log", "beta_example_git__log"]);
    let mine = changed(git(1, OWN, Pool::ThisNode), |offer| offer.origin = Origin::ThisNode);
    let catalogue = Catalogue::build([git(2, OWN, Pool::Anywhere), mine]);
    assert_eq!(catalogue.by_name("log").map(|entry| entry.pool), Some(Pool::ThisNode));
    assert_eq!(catalogue.entries().len(), 2);
}

#[test]
fn only_the_name_is_replaced() {
    let one = offer(1, "acme.example/time/now", "v1");
    let text = one.descriptor.raw().get().to_owned();
    let catalogue = Catalogue::build([one.clone(), offer(1, "acme.example/clock/now", "v2")]);
    let entry = catalogue.by_name("time__now").unwrap();
    assert_eq!(entry.object.get(), text.replace(r#""name":"now""#, r#""name":"time__now""#));
    assert!(catalogue.by_name("now").is_none());
    let alone = Catalogue::build([one]);
    assert_eq!(alone.by_name("now").unwrap().object.get(), text);
}

#[test]
fn the_nearest_descriptor_is_shown_where_vendor_keys_differ() {
    let vendor = |offer: Offered, note: &str| {
        let text = offer.descriptor.raw().get().replacen('{', &format!(r#"{{"x":"{note}","#), 1);
        changed(offer, |offer| offer.descriptor = Arc::new(Descriptor::parse(Kind::Tool, &text).unwrap()))
    };
    let foreign = vendor(offer(1, "beta.example/time/now", "v1"), "theirs");
    let own = vendor(offer(2, "acme.example/time/now", "v1"), "ours");
    for offers in [[foreign.clone(), own.clone()], [own, foreign]] {
        assert!(Catalogue::build(offers).by_name("now").unwrap().object.get().contains("ours"));
    }
}

#[test]
fn the_digest_follows_what_clients_see() {
    let time = offer(1, "acme.example/time/now", "v1");
    let one = Catalogue::build([time.clone()]).digest(Kind::Tool);
    let replica = offer(2, "acme.example/time/now", "v1");
    assert_eq!(Catalogue::build([time.clone(), replica]).digest(Kind::Tool), one, "another node is no news");
    assert_ne!(
        Catalogue::build([time.clone(), offer(1, "acme.example/files/read", "v1")]).digest(Kind::Tool),
        one
    );
    assert_ne!(Catalogue::build([offer(1, "acme.example/time/now", "v2")]).digest(Kind::Tool), one);
    assert_ne!(Catalogue::default().digest(Kind::Tool), one);
}

#[test]
fn a_full_catalogue_keeps_the_orgs_own_tools() {
    let foreign = (0..ENTRIES_MAX + 10).map(|n| offer(1, &format!("beta.example/s/t{n}"), "v"));
    let own = (0..20).map(|n| offer(2, &format!("acme.example/zzz/own{n}"), "v"));
    let catalogue = Catalogue::build(foreign.chain(own));
    assert_eq!(catalogue.entries().len(), ENTRIES_MAX);
    assert_eq!(catalogue.left_out(), 30);
    assert!((0..20).all(|n| catalogue.by_name(&format!("own{n}")).is_some()));
}

/// An offer of any kind; `path` is `org/server/name`, and `note` makes the contract.
fn item(node: u8, kind: Kind, path: &str, note: &str) -> Offered {
    let mut offer = offer(node, path, "x");
    let name = serde_json::to_string(offer.capability.name.as_str()).unwrap();
    let key = crate::contract::name_key(kind);
    let also = if key == "name" { "" } else { r#""name":"n","# };
    let text = format!(r#"{{{also}"{key}":{name},"description":"{note}"}}"#);
    offer.capability.kind = kind;
    offer.pool = if matches!(kind, Kind::Tool | Kind::Prompt) { Pool::Anywhere } else { Pool::SameOrg };
    offer.descriptor = Arc::new(Descriptor::parse(kind, &text).unwrap());
    offer
}

#[test]
fn tools_and_prompts_of_one_name_do_not_clash() {
    let catalogue = Catalogue::build([
        offer(1, "acme.example/time/now", "v1"),
        item(1, Kind::Prompt, "acme.example/time/now", "p"),
        item(1, Kind::Prompt, "acme.example/clock/tick", "p"),
    ]);
    let prompts: Vec<_> = catalogue.of_kind(Kind::Prompt).iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!((prompts, catalogue.of_kind(Kind::Tool).len()), (vec!["now", "tick"], 1));
    assert_eq!(catalogue.find(Kind::Prompt, "now").unwrap().capabilities[0].kind, Kind::Prompt);
    assert!(catalogue.find(Kind::Resource, "now").is_none());
}

#[test]
fn a_uri_stays_with_the_nearest_and_the_others_are_listed_beside_it() {
    let uri = "file:///etc/hosts";
    let at = |org: &str, server: &str| item(1, Kind::Resource, &format!("{org}/{server}/{uri}"), server);
    let uris = |offers: Vec<Offered>| -> Vec<String> {
        Catalogue::build(offers).entries().iter().map(|entry| entry.name.clone()).collect()
    };
    let foreign = || at("beta.example", "files");
    assert_eq!(uris(vec![foreign()]), [uri]);
    let local = || changed(at(OWN, "files"), |offer| offer.origin = Origin::ThisNode);
    let theirs = format!("comity://beta.example/files/{uri}");
    assert_eq!(uris(vec![foreign(), local()]), [theirs.as_str(), uri]);
    let both = [theirs.clone(), format!("comity://gamma.example/files/{uri}")];
    assert_eq!(uris(vec![at("gamma.example", "files"), foreign()]), both, "neither takes it from the other");
    assert_eq!(uris(vec![at("gamma.example", "files"), foreign(), local()]), [&both[0], &both[1], uri]);
}

#[test]
fn nobody_passes_for_a_qualified_uri() {
    let fake = item(1, Kind::Resource, "evil.example/x/comity://acme.example/files/file:///a", "");
    let name = Catalogue::build([fake]).entries()[0].name.clone();
    assert_eq!(name, "comity://evil.example/x/comity://acme.example/files/file:///a");
}

#[test]
fn a_resource_under_two_contracts_is_lost_under_neither() {
    let of = |node, note: &str| item(node, Kind::Resource, "acme.example/files/file:///a", note);
    let catalogue = Catalogue::build([of(1, "old"), of(2, "old"), of(3, "new")]);
    let shown: Vec<_> = catalogue.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(shown[1], "file:///a");
    assert!(
        shown[0].starts_with("comity://acme.example/files~") && shown[0].ends_with("/file:///a"),
        "{shown:?}"
    );
    assert!(catalogue.entries()[1].object.get().contains("old"), "most nodes");
}

#[test]
fn a_uri_leads_to_the_template_that_says_most() {
    let of = |name: &str| item(1, Kind::Template, &format!("acme.example/files/{name}"), name);
    let catalogue = Catalogue::build([of("file:///{+path}"), of("file:///logs/{day}"), of("db://{table}")]);
    let found = |uri: &str| catalogue.template_of(uri).map(|entry| entry.name.as_str());
    assert_eq!(found("file:///logs/monday"), Some("file:///logs/{day}"));
    assert_eq!(found("file:///logs/2026/monday"), Some("file:///{+path}"));
    assert_eq!(found("http://elsewhere"), None);
}

#[test]
fn one_server_by_itself_keeps_every_name() {
    let catalogue = Catalogue::passthrough([
        offer(1, "acme.example/s/comity_job_get", "v1"),
        offer(1, "acme.example/s/a.b", "v1"),
        offer(1, "acme.example/s/a_b", "v1"),
        offer(2, "acme.example/s/a_b", "v2"),
        item(1, Kind::Server, "acme.example/s/s", ""),
    ]);
    let shown: Vec<_> = catalogue.entries().iter().map(|entry| (entry.kind, entry.name.as_str())).collect();
    let tools = ["a.b", "a_b", "comity_job_get"].map(|name| (Kind::Tool, name));
    assert_eq!(shown, [&[(Kind::Server, "s")][..], &tools].concat());
}

#[test]
fn what_is_filtered_keeps_its_name_and_its_digests_follow() {
    let all = Catalogue::build([
        offer(1, "acme.example/time/now", "v1"),
        offer(1, "acme.example/clock/now", "v2"),
        item(1, Kind::Prompt, "acme.example/time/p", ""),
    ]);
    let some = all.filtered(|entry| entry.kind != Kind::Tool || entry.name == "time__now");
    assert_eq!(some.of_kind(Kind::Tool).len(), 1);
    assert_ne!(some.digest(Kind::Tool), all.digest(Kind::Tool));
    assert_eq!(some.digest(Kind::Prompt), all.digest(Kind::Prompt));
}

fn offers() -> impl Strategy<Value = Vec<Offered>> {
    let org = prop::sample::select(vec![
        OWN,
        "beta.example",
        "comity",
        "a-very-long-name-of-an-org.that-goes-on.example",
    ]);
    let server = prop::sample::select(vec!["time", "clock", "comity_x", "time__now"]);
    let tool = prop_oneof![
        prop::sample::select(vec![
            "now",
            "now.",
            "time__now",
            "comity_job_get",
            "x__now",
            "clock__now",
            "_",
            "取得"
        ])
        .prop_map(str::to_owned),
        "[a-z.é ]{1,120}".prop_filter("a tool's name has at most 128 bytes", |name| name.len() <= 128),
    ];
    let pool = prop::sample::select(vec![Pool::Anywhere, Pool::SameOrg, Pool::ThisNode]);
    let one = (0..4_u8, org, server, tool, 0..3_u8, pool, any::<bool>());
    let make = |(node, org, server, tool, contract, pool, own): (u8, &str, &str, String, u8, Pool, bool)| {
        changed(offer(node, &format!("{org}/{server}/{tool}"), &contract.to_string()), |offer| {
            offer.pool = pool;
            if own && org == OWN {
                offer.origin = Origin::ThisNode;
            }
        })
    };
    prop::collection::vec(one.prop_map(make), 0..40)
}

proptest! {
    #[test]
    fn names_are_unique_allowed_and_bounded(offers in offers()) {
        let catalogue = Catalogue::build(offers.clone());
        for pair in catalogue.entries().windows(2) {
            prop_assert!(pair[0].name < pair[1].name);
        }
        for entry in catalogue.entries() {
            let name = &entry.name;
            prop_assert!((1..=EXPOSED_NAME_BYTES_MAX).contains(&name.len()), "{}", name);
            prop_assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{}", name);
            prop_assert!(!name.to_lowercase().starts_with(RESERVED_PREFIX), "{}", name);
            prop_assert_eq!(crate::json::path(&entry.object, &["name"]).unwrap().get(), format!("\"{name}\""));
        }
        // Nothing is lost: every offer is behind an entry of its contract.
        for offer in &offers {
            let contract = offer.descriptor.contract();
            prop_assert!(catalogue.by_capability(&offer.capability).any(|entry| entry.contract == contract));
        }
    }

    #[test]
    fn the_order_of_the_offers_is_no_matter(offers in offers(), seed in any::<u64>()) {
        let mut shuffled = offers.clone();
        crate::rng::Rng::new(seed).shuffle(&mut shuffled);
        shuffled.extend(offers.first().cloned());
        let (one, other) = (Catalogue::build(offers), Catalogue::build(shuffled));
        prop_assert_eq!(one.digest(Kind::Tool), other.digest(Kind::Tool));
        for (a, b) in one.entries().iter().zip(other.entries()) {
            prop_assert_eq!((&a.name, a.object.get(), &a.capabilities), (&b.name, b.object.get(), &b.capabilities));
        }
    }
}
