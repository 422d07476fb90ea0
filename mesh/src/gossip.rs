//! Gossip of adverts: gossipsub with its own signing off, since adverts are signed objects already, and with the core's
//! verdict on every message before it is passed on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use comity_protocol::ids::MeshName;
use comity_protocol::mesh::Acceptance;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, IdentityTransform, Message, MessageAcceptance, MessageAuthenticity,
    MessageId, MetricsConfig, PeerScoreParams, PeerScoreThresholds, TopicScoreParams, ValidationMode,
    WhitelistSubscriptionFilter,
};
use prometheus_client::registry::Registry;

/// Most bytes of one gossiped message.
pub const GOSSIP_BYTES_MAX: usize = 64 * 1024;

/// Messages that may wait for one slow peer; more are dropped, and anti-entropy brings the peer up to date.
const QUEUE_MAX: usize = 256;

/// How long a message counts as seen.
const SEEN_FOR: Duration = Duration::from_secs(120);

/// How long until a rejected message has been forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// Gossipsub as we use it: no other topic than ours takes a subscription.
pub type Gossip = gossipsub::Behaviour<IdentityTransform, WhitelistSubscriptionFilter>;

/// The topic on which the adverts of a mesh travel.
#[must_use]
pub fn advert_topic(mesh: &MeshName) -> IdentTopic {
    IdentTopic::new(format!("comity/{mesh}/advert/1"))
}

/// Gossipsub, subscribed to the adverts of `mesh`.
#[must_use]
pub fn gossip(mesh: &MeshName, registry: &mut Registry) -> Gossip {
    let topic = advert_topic(mesh);
    let filter = WhitelistSubscriptionFilter(HashSet::from([topic.hash()]));
    let mut gossip = Gossip::new_with_subscription_filter(MessageAuthenticity::Anonymous, config(), filter)
        .expect("constants that a test tries")
        .with_metrics(registry.sub_registry_with_prefix("gossipsub"), MetricsConfig::default());
    gossip.with_peer_score(score(&topic), thresholds()).expect("constants that a test tries");
    gossip.subscribe(&topic).expect("the filter allows the topic");
    gossip
}

/// The core's verdict in gossipsub's words.
#[must_use]
pub const fn verdict(acceptance: Acceptance) -> MessageAcceptance {
    match acceptance {
        Acceptance::Accept => MessageAcceptance::Accept,
        Acceptance::Ignore => MessageAcceptance::Ignore,
        Acceptance::Reject => MessageAcceptance::Reject,
    }
}

/// The overlay keeps some eight neighbours, so gossipsub's own degrees (six wanted, five to twelve) suit small meshes,
/// where all neighbours are in, and large ones alike.
fn config() -> gossipsub::Config {
    ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(content_id)
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .connection_handler_queue_len(QUEUE_MAX)
        .duplicate_cache_time(SEEN_FOR)
        .build()
        .expect("constants that a test tries")
}

fn content_id(message: &Message) -> MessageId {
    MessageId::from(&blake3::hash(&message.data).as_bytes()[..20])
}

/// What a peer is judged by: messages that the core rejects, and abuse of the protocol. Not by how much it delivers
/// (adverts are rare) nor by its address (a site's nodes share one).
fn score(topic: &IdentTopic) -> PeerScoreParams {
    let decay = gossipsub::score_parameter_decay(FORGIVEN_AFTER);
    let adverts = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: decay,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([(topic.hash(), adverts)]),
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: -1.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: decay,
        ..PeerScoreParams::default()
    }
}

/// One or two rejected messages (10 and 40 points) cost nothing; with three (90) the peer's gossip is no longer sought,
/// and with four (160) it is not heard until time has forgiven some.
fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -60.0,
        publish_threshold: -100.0,
        graylist_threshold: -150.0,
        ..PeerScoreThresholds::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_taken() {
        let mesh: MeshName = "test".parse().unwrap();
        let gossip = gossip(&mesh, &mut Registry::default());
        let topics: Vec<_> = gossip.topics().map(ToString::to_string).collect();
        assert_eq!(topics, ["comity/test/advert/1"]);
    }
}
