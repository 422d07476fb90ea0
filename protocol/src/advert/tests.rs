use super::*;
use crate::testing::{DAY, TestNode, TestOrg, mesh, places};

const START: Wall = Wall::from_millis(1_795_000_000_000);

fn setup() -> (Anchors, TestOrg, TestNode) {
    let org = TestOrg::new("acme.example", 1, START);
    let mut anchors = Anchors::new(mesh());
    anchors.pin(org.name.clone(), org.chain.pin().unwrap());
    anchors.learn(org.chain.clone()).unwrap();
    let node = TestNode::new(&org, 1, places("DE FR"));
    (anchors, org, node)
}

fn check(change: impl FnOnce(&mut Advert), at: Wall) -> Result<TrustedAdvert, AdvertError> {
    let (mut anchors, _, node) = setup();
    let advert = node.advert_with(1, START, change);
    TrustedAdvert::verify(advert.bytes(), &mut anchors, at)
}

#[test]
fn a_good_advert_is_small_and_verifies() {
    let trusted = check(|_| {}, START).unwrap();
    assert!(trusted.advert.bytes().len() < 700, "{} bytes", trusted.advert.bytes().len());
    assert_eq!(trusted.expires(), trusted.advert.expires);
}

#[test]
fn a_place_outside_the_membership_is_refused_by_name() {
    let error = check(|advert| advert.site.processing_locations = places("DE US"), START).unwrap_err();
    assert_eq!(error.code(), "location_outside_membership");
    assert!(error.to_string().contains("claims US"), "{error}");
}

#[test]
fn bounds_and_times_hold() {
    for (change, code) in [
        ((|a| a.addresses = vec!["x".into(); 17]) as fn(&mut Advert), "bound"),
        (|a| a.addresses = vec!["x".repeat(300)], "bound"),
        (|a| a.name = "x".repeat(65), "bound"),
        (|a| a.name = "a\nb".into(), "bound"),
        (|a| a.expires = a.issued + DAY * 2, "bound"),
        (|a| a.expires = a.issued, "expired"),
        (|a| a.issued = START + DAY, "future"),
        (|a| (a.issued, a.expires) = (START + DAY, START + DAY + DAY), "future"),
        (|a| a.epoch = 2, "membership_mismatch"),
        (|a| a.org = "other.example".parse().unwrap(), "membership_mismatch"),
    ] {
        assert_eq!(check(change, START).unwrap_err().code(), code);
    }
}

#[test]
fn a_stolen_membership_is_of_no_use_to_another_key() {
    let (mut anchors, org, node) = setup();
    let mut thief = TestNode::new(&org, 2, places("DE"));
    thief.membership = node.membership.clone();
    let error = TrustedAdvert::verify(thief.advert(1, START).bytes(), &mut anchors, START).unwrap_err();
    assert_eq!(error.code(), "membership_mismatch");
    let posing = thief.advert_with(1, START, |advert| advert.node = node.id);
    let error = TrustedAdvert::verify(posing.bytes(), &mut anchors, START).unwrap_err();
    assert_eq!(error.code(), "bad_signature");
}

#[test]
fn memberships_are_checked_from_the_pin_down() {
    let (mut anchors, org, node) = setup();
    let verify = |anchors: &mut Anchors, bytes: &[u8], now| {
        anchors.verify_membership(bytes, now).map_err(|e| e.code())
    };
    let bytes = node.membership.bytes().clone();
    assert!(verify(&mut anchors, &bytes, START).is_ok());
    assert_eq!(verify(&mut anchors, &bytes, START + DAY * 7).unwrap_err(), "membership_expired");
    assert_eq!(verify(&mut anchors, &bytes, START - DAY).unwrap_err(), "root_invalid");
    let impostor = TestOrg::new("acme.example", 9, START);
    let forged = impostor.admit(node.id, places("DE"));
    assert_eq!(verify(&mut anchors, forged.bytes(), START).unwrap_err(), "wrong_issuer");
    let other = TestOrg::new("other.example", 3, START);
    let foreign = other.admit(node.id, places("DE"));
    assert_eq!(verify(&mut anchors, foreign.bytes(), START).unwrap_err(), "unpinned_org");
    anchors.pin(other.name.clone(), other.chain.pin().unwrap());
    assert_eq!(verify(&mut anchors, foreign.bytes(), START).unwrap_err(), "root_missing");
    let long = org.admit_with(node.id, places("DE"), |m| m.expires = m.not_before + DAY * 8);
    assert_eq!(verify(&mut anchors, long.bytes(), START).unwrap_err(), "membership_too_long");
    assert!(anchors.unpin(&org.name));
    assert_eq!(verify(&mut anchors, &bytes, START).unwrap_err(), "unpinned_org");
}

#[test]
fn a_root_is_learned_only_from_its_pin() {
    let (mut anchors, org, _) = setup();
    assert_eq!(anchors.learn(org.chain.clone()), Ok(false));
    let impostor = TestOrg::new("acme.example", 9, START);
    assert!(matches!(anchors.learn(impostor.chain), Err(crate::trust::RootRefusal::Mismatch { .. })));
    let stranger = TestOrg::new("other.example", 3, START);
    assert!(matches!(anchors.learn(stranger.chain), Err(crate::trust::RootRefusal::Unpinned(_))));
}

fn offer(server: &str, tool: &str) -> Offer {
    Offer {
        server: server.parse().unwrap(),
        kind: Kind::Tool,
        name: tool.parse().unwrap(),
        contract: ContractDigest::of(b"c"),
        descriptor: BlobDigest::of(b"d"),
        class_max: DataClass::Internal,
    }
}

#[test]
fn an_offer_set_is_ordered_and_reads_back() {
    let set = OfferSet::new(vec![offer("b", "x"), offer("a", "y"), offer("a", "y")]).unwrap();
    assert_eq!(set.offers().len(), 2);
    assert_eq!(OfferSet::decode(&set.encode()), Ok(set.clone()));
    let unordered = OfferSet { layout: 1, offers: set.offers.iter().rev().cloned().collect() };
    assert_eq!(OfferSet::decode(&unordered.encode()), Err(OfferSetError::Order));
    let later = OfferSet { layout: 2, ..set };
    assert_eq!(OfferSet::decode(&later.encode()), Err(OfferSetError::Layout(2)));
}
