use std::time::Duration;

use comity_protocol::approval::{Judgement, Scope};
use comity_protocol::mesh::blobs::Visibility;
use comity_protocol::mesh::directory::Directory;
use comity_protocol::testing::{DAY, TestNode, TestOrg, mesh, places};
use comity_protocol::time::{Mono, Now};
use comity_protocol::trust::Anchors;

use super::*;
use crate::config::NodeConfig;

const NOW: Wall = Wall::from_millis(1_795_000_000_000);
const TIME: &str = r#"{"name":"time","description":"what time it is","inputSchema":{"type":"object"}}"#;
const TIME_CHANGED: &str = r#"{"name":"time","description":"what it is","inputSchema":{"type":"object"}}"#;
const MOON: &str = r#"{"name":"moon","inputSchema":{"type":"object"}}"#;

/// A node of acme.example and all that it knows.
struct Site {
    me: Me,
    servers: BTreeMap<ServerName, ServerConfig>,
    upstreams: Upstreams,
    anchors: Anchors,
    directory: Directory,
    blobs: Blobs,
    linked: BTreeSet<NodeId>,
    approvals: Approvals,
    cache: DescriptorCache,
}

fn org(name: &str, seed: u8) -> TestOrg {
    TestOrg::new(name, seed, NOW - DAY)
}

fn server(share: &str, more: &str) -> ServerConfig {
    let text = format!("[servers.s]\ncommand = \"true\"\nshare = \"{share}\"\n{more}\n");
    let loaded = NodeConfig::parse(std::path::Path::new("comity.toml"), &text, &|_| None);
    loaded.unwrap_or_else(|error| panic!("{error}")).config.servers.into_values().next().unwrap()
}

impl Site {
    fn new(orgs: &[&TestOrg]) -> Self {
        let acme = org("acme.example", 1);
        let mut anchors = Anchors::new(mesh());
        for org in orgs.iter().copied().chain([&acme]) {
            anchors.pin(org.name.clone(), org.chain.pin().unwrap());
            anchors.learn(org.chain.clone()).unwrap();
        }
        Self {
            me: Me {
                node: TestNode::new(&acme, 1, places("DE")).id,
                org: acme.name,
                name: "me".into(),
                site: SiteConfig { processing_locations: places("DE"), ..SiteConfig::default() },
                executor: true,
                locations_max: places("DE"),
            },
            servers: BTreeMap::new(),
            upstreams: Upstreams::new(),
            anchors,
            directory: Directory::new(BTreeMap::new()),
            blobs: Blobs::default(),
            linked: BTreeSet::new(),
            approvals: Approvals::new(),
            cache: DescriptorCache::default(),
        }
    }

    fn fronts(&mut self, name: &str, share: &str, state: UpstreamState, tools: &[&str]) -> &mut Self {
        let name: ServerName = name.parse().unwrap();
        self.servers.insert(name.clone(), server(share, ""));
        self.upstreams.insert(name, UpstreamView::offering(state, tools));
        self
    }

    /// A set of offers of `server`, in the blobs.
    fn offers(&mut self, server: &str, tools: &[&str]) -> BlobDigest {
        let offers = tools.iter().map(|raw| {
            let descriptor = Descriptor::parse(Kind::Tool, raw).unwrap();
            let bytes: Arc<[u8]> = descriptor.raw().get().as_bytes().into();
            self.blobs.put(descriptor.blob(), bytes, &Visibility::everyone());
            Offer {
                server: server.parse().unwrap(),
                kind: Kind::Tool,
                name: descriptor.name().clone(),
                contract: descriptor.contract(),
                descriptor: descriptor.blob(),
                class_max: DataClass::Internal,
            }
        });
        let set = OfferSet::new(offers.collect()).unwrap();
        let bytes: Arc<[u8]> = set.encode().into();
        let digest = BlobDigest::of(&bytes);
        self.blobs.put_set(digest, bytes, set, &Visibility::everyone());
        digest
    }

    /// A node of `of` offers `tools` to everybody and `to_org` to its org.
    fn peer(&mut self, of: &TestOrg, seed: u16, tools: &[&str], to_org: &[&str]) -> NodeId {
        let node = TestNode::new(of, seed, places("FR"));
        let (offers, org_offers) = (self.offers("clock", tools), self.offers("clock", to_org));
        let advert = node.advert_with(1, NOW, |advert| {
            (advert.offers, advert.org_offers) = (Some(offers), Some(org_offers));
        });
        let now = Now { mono: Mono::ZERO, wall: NOW };
        self.directory.insert(advert.bytes(), &mut self.anchors, now).unwrap();
        node.id
    }

    fn world(&mut self) -> World {
        let nodes = self.directory.iter().map(|(node, entry)| (*node, Arc::new(entry.clone()))).collect();
        let sources = Sources {
            me: &self.me,
            servers: &self.servers,
            upstreams: &self.upstreams,
            nodes: &nodes,
            blobs: &self.blobs,
            linked: &self.linked,
            now: NOW,
        };
        world(&sources, &mut self.approvals, &mut self.cache)
    }
}

fn names(world: &World) -> Vec<&str> {
    world.catalogue.entries().iter().map(|entry| entry.name.as_str()).collect()
}

fn nodes(world: &World, name: &str) -> Vec<NodeId> {
    world.route(name).unwrap().candidates.iter().map(|candidate| candidate.site.node).collect()
}

#[test]
fn own_servers_are_there_for_own_clients_however_they_are_shared() {
    let mut site = Site::new(&[]);
    site.fronts("a", "local", UpstreamState::Ready, &[TIME])
        .fronts("b", "org", UpstreamState::Down, &[MOON])
        .fronts("c", "federation", UpstreamState::Starting, &[]);
    let world = site.world();
    assert_eq!(names(&world), ["moon", "time"]);
    let reach = |name: &str| world.route(name).unwrap().candidates[0].reach;
    assert_eq!((reach("time"), reach("moon")), (Reach::Local, Reach::Unreachable));
    assert_eq!(world.route("time").unwrap().capability.to_string(), "acme.example/a/time");
}

#[test]
fn one_contract_of_several_orgs_is_one_tool_with_all_its_candidates() {
    let (umbrella, globex) = (org("umbrella.example", 2), org("globex.example", 3));
    let mut site = Site::new(&[&umbrella, &globex]);
    site.fronts("clock", "federation", UpstreamState::Ready, &[TIME]);
    let acme = org("acme.example", 1);
    let peers = [
        site.peer(&acme, 10, &[TIME], &[]),
        site.peer(&umbrella, 11, &[TIME, MOON], &[]),
        site.peer(&umbrella, 12, &[TIME], &[]),
        site.peer(&globex, 13, &[TIME], &[]),
    ];
    site.approvals.approve(Scope::Org(umbrella.name.clone()), NOW).unwrap();
    let world = site.world();
    assert_eq!(names(&world), ["moon", "time"]);
    let mut expected = vec![site.me.node, peers[0], peers[1], peers[2], peers[3]];
    let mut actual = nodes(&world, "time");
    expected.sort();
    actual.sort();
    assert_eq!(actual, expected, "also the one that is not approved: a denial has a reason for it");
    let route = world.route("time").unwrap();
    assert!(!route.candidate(&peers[3]).unwrap().approval.is_approved());
    assert_eq!(route.capability.org, site.me.org, "named after the nearest");
    assert_eq!(nodes(&world, "globex.example/clock/time"), [peers[3]]);
}

#[test]
fn what_is_for_an_org_is_seen_by_that_org_only_and_twice_offered_is_once_there() {
    let (umbrella, acme) = (org("umbrella.example", 2), org("acme.example", 1));
    let mut site = Site::new(&[&umbrella]);
    let own = site.peer(&acme, 10, &[TIME], &[TIME, MOON]);
    site.peer(&umbrella, 11, &[], &[MOON]);
    site.approvals.approve(Scope::Org(umbrella.name.clone()), NOW).unwrap();
    let world = site.world();
    assert_eq!(names(&world), ["moon", "time"]);
    assert_eq!((nodes(&world, "time"), nodes(&world, "moon")), (vec![own], vec![own]));
}

#[test]
fn a_server_that_is_shared_with_nobody_is_merged_with_nobodys() {
    let acme = org("acme.example", 1);
    let mut site = Site::new(&[]);
    site.fronts("clock", "local", UpstreamState::Down, &[TIME]);
    let peer = site.peer(&acme, 10, &[TIME], &[]);
    let world = site.world();
    let routes: Vec<_> = names(&world).into_iter().map(|name| nodes(&world, name)).collect();
    assert_eq!(routes.len(), 2, "{:?}", names(&world));
    assert!(routes.contains(&vec![site.me.node]) && routes.contains(&vec![peer]));
    assert_eq!(
        nodes(&world, "acme.example/clock/time"),
        [site.me.node],
        "a name by path does not merge them either"
    );
}

#[test]
fn a_peers_offer_counts_as_its_descriptor_says_and_as_the_operator_approved() {
    let umbrella = org("umbrella.example", 2);
    let mut site = Site::new(&[&umbrella]);
    site.peer(&umbrella, 11, &[TIME], &[]);
    let capability = "umbrella.example/clock/time";
    let world = site.world();
    assert!(names(&world).is_empty());
    assert_eq!(world.items_of(capability).next().unwrap().judgement, Judgement::Unapproved);
    site.approvals.approve(Scope::Org(umbrella.name.clone()), NOW).unwrap();
    assert_eq!(names(&site.world()), ["time"]);
    // Another node of the org has moved on: its contract waits, the first one's still serves.
    site.peer(&umbrella, 12, &[TIME_CHANGED], &[]);
    let world = site.world();
    assert_eq!(names(&world), ["time"]);
    let judged: Vec<_> = world.items_of(capability).map(|tool| tool.judgement.code()).collect();
    assert_eq!(
        {
            let mut judged = judged;
            judged.sort_unstable();
            judged
        },
        ["approved", "quarantined"]
    );
    assert_eq!(world.route("time").unwrap().candidates.len(), 2);
}

#[test]
fn a_peers_tools_stay_until_what_it_offers_now_is_here() {
    let acme = org("acme.example", 1);
    let mut site = Site::new(&[]);
    let offers = site.offers("clock", &[TIME]);
    let advertised = |site: &mut Site, seq, offers| {
        let node = TestNode::new(&acme, 10, places("FR"));
        let advert = node.advert_with(seq, NOW, |advert| advert.offers = offers);
        site.directory
            .insert(advert.bytes(), &mut site.anchors, Now { mono: Mono::ZERO, wall: NOW })
            .unwrap();
    };
    advertised(&mut site, 1, Some(offers));
    assert_eq!(names(&site.world()), ["time"]);
    // It has changed, and the mesh has dropped the old offers and not pulled the new ones.
    let mut later = Site::new(&[]);
    let changed = later.offers("clock", &[MOON]);
    site.blobs = Blobs::default();
    advertised(&mut site, 2, Some(changed));
    assert_eq!(names(&site.world()), ["time"]);
    site.blobs = later.blobs;
    assert_eq!(names(&site.world()), ["moon"]);
    advertised(&mut site, 3, None);
    assert!(names(&site.world()).is_empty(), "withdrawn is withdrawn");
    // What was never here does not count.
    site.blobs = Blobs::default();
    advertised(&mut site, 4, Some(changed));
    assert!(site.world().items.is_empty());
}

#[test]
fn only_what_the_operator_lets_a_server_offer_is_offered_and_only_while_it_is_there() {
    let mut site = Site::new(&[]);
    site.fronts("a", "federation", UpstreamState::Ready, &[TIME, MOON])
        .fronts("b", "org", UpstreamState::Down, &[TIME])
        .fronts("c", "local", UpstreamState::Ready, &[TIME])
        .fronts("d", "federation", UpstreamState::Down, &[TIME]);
    site.servers.insert("a".parse().unwrap(), server("federation", "approve = [\"moon\"]\nclass_max = 1"));
    let mut sets = |promised: &str| {
        let promised = |name: &ServerName| name.as_str() == promised;
        let own = own_offer_sets(&site.servers, &site.upstreams, &mut site.cache, promised);
        let list = |set: &OfferSet| -> Vec<String> {
            set.offers().iter().map(|offer| format!("{}/{}", offer.server, offer.name)).collect()
        };
        (list(&own.federation), list(&own.org), own.descriptors.len())
    };
    assert_eq!(sets(""), (vec!["a/moon".into()], vec![], 1));
    assert_eq!(sets("b"), (vec!["a/moon".into()], vec!["b/time".into()], 2));
    assert_eq!(sets("c"), (vec!["a/moon".into()], vec![], 1), "shared with nobody");
    assert_eq!(names(&site.world()).len(), 4, "{:?}", names(&site.world()));
}

#[test]
fn a_peer_that_ends_or_is_out_of_reach_says_so() {
    let acme = org("acme.example", 1);
    let mut site = Site::new(&[]);
    let peer = site.peer(&acme, 10, &[TIME], &[]);
    let reach = |world: &World| world.route("time").unwrap().candidates[0].reach;
    assert_eq!(reach(&site.world()), Reach::Known);
    site.directory.suspect(&peer, true);
    assert_eq!(reach(&site.world()), Reach::Suspected);
    site.linked.insert(peer);
    let world = site.world();
    assert_eq!(reach(&world), Reach::Connected);
    let candidate = &world.route("time").unwrap().candidates[0];
    assert!(candidate.expires > NOW && candidate.expires <= NOW + Duration::from_secs(4 * 3600));
}
