//! What the world tells a [`Chronicle`], when somebody keeps one. Nothing here changes a run.

use comity_protocol::mesh::wire::LinkMessage;

use super::faults::Change;
use super::{Event, World};
use crate::calls::CallEvent;
use crate::chronicle::{Actor, Chronicle, Fate, FaultStory, Message, MessageKind, State};
use crate::moment::Moment;
use crate::network::FaultId;
use crate::scenario::{Act, Direction};

impl World {
    /// Begins to keep a chronicle.
    pub(crate) fn keep_chronicle(&mut self) {
        let actor = |member: &crate::federation::Member| {
            let site = &self.scenario.sites[member.site];
            let org = self.scenario.orgs[site.org].name.to_string();
            Actor { name: member.name.clone(), site: site.name.clone(), org }
        };
        let actors = self.federation.members.iter().map(actor).collect();
        self.chronicle = Some(Box::new(Chronicle::of(actors)));
    }

    /// Takes the chronicle, with how the run ended.
    pub(crate) fn take_chronicle(&mut self) -> Option<Chronicle> {
        let mut chronicle = *self.chronicle.take()?;
        chronicle.end = self.now.0;
        chronicle.converged = self.judge.converged.map(|at| at.0);
        chronicle.healed = self.judge.truly_healed().map(|at| at.0);
        Some(chronicle)
    }

    /// Notes something, if somebody keeps a chronicle.
    pub(crate) fn note(&mut self, note: impl FnOnce(&mut Chronicle, Moment)) {
        if let Some(chronicle) = &mut self.chronicle {
            note(chronicle, self.now);
        }
    }

    /// Notes a message. `event` is what would arrive.
    pub(super) fn note_message(&mut self, from: usize, to: usize, event: &Event, bytes: usize, fate: Fate) {
        self.note(|chronicle, now| {
            let (kind, what) = describe(event);
            chronicle.messages.take(Message { nr: 0, at: now.0, from, to, kind, what, bytes, fate });
        });
    }

    pub(super) fn note_dial(&mut self, from: usize, to: usize, there: Option<Moment>) {
        self.note(|chronicle, now| {
            let fate = there.map_or(Fate::Lost, |there| Fate::Arrives(there.0));
            let bytes = crate::network::FRAME_OVERHEAD_BYTES;
            let (kind, what) = (MessageKind::Dial, "dial");
            chronicle.messages.take(Message { nr: 0, at: now.0, from, to, kind, what, bytes, fate });
        });
    }

    /// Notes what a step of a fault begins or ends.
    pub(super) fn note_fault(&mut self, id: FaultId, change: &Change) {
        self.note(|chronicle, now| {
            let story = |kind, nodes: &[usize]| FaultStory {
                id,
                kind,
                nodes: nodes.to_vec(),
                from: Vec::new(),
                detail: String::new(),
                begin: now.0,
                end: None,
            };
            // The second step of a fault of a single node ends it.
            let is_open = chronicle.faults.iter().rev().any(|fault| fault.id == id && fault.end.is_none());
            if is_open {
                return chronicle.fault_ended(id, now);
            }
            let began = match change {
                Change::Cut { inside, outside, direction } => {
                    let everybody = inside.len() + outside.len() == chronicle.actors.len();
                    FaultStory {
                        from: if everybody { Vec::new() } else { outside.clone() },
                        detail: direction_text(*direction).to_owned(),
                        ..story("partition", inside)
                    }
                }
                Change::Degrade { nodes, path } => {
                    let detail = format!(
                        "{:?} to {:?} one way, {}% lost",
                        path.latency.from,
                        path.latency.to,
                        f64::from(path.loss.0) / 10_000.0
                    );
                    FaultStory { detail, ..story("degrade", nodes) }
                }
                Change::Crash { node, disk } => {
                    FaultStory { detail: format!("disk {}", disk.word()), ..story("crash", &[*node]) }
                }
                Change::Leave { node } => story("leave", &[*node]),
                Change::Clock { node, by_ms } => {
                    FaultStory { detail: format!("{by_ms:+} ms"), ..story("clock_jump", &[*node]) }
                }
                Change::Turn { node, acts } => {
                    let acts: Vec<&str> = acts.iter().map(|act| Act::word(*act)).collect();
                    FaultStory { detail: acts.join(", "), ..story("byzantine", &[*node]) }
                }
                Change::Mend | Change::Start { .. } | Change::Move { .. } => return,
            };
            chronicle.fault_began(began);
        });
    }

    pub(super) fn note_state(&mut self, node: usize, state: State) {
        self.note(|chronicle, now| chronicle.turned(node, state, now));
    }
}

const fn direction_text(direction: Direction) -> &'static str {
    match direction {
        Direction::Both => "both directions",
        Direction::Out => "what they send",
        Direction::In => "what they are sent",
    }
}

fn describe(event: &Event) -> (MessageKind, &'static str) {
    match event {
        Event::Frame { bytes, .. } => link_message(bytes),
        Event::Control { .. } => (MessageKind::Gossip, "control"),
        Event::Gossip { .. } => (MessageKind::Gossip, "advert"),
        Event::Pull { .. } => (MessageKind::Blobs, "pull"),
        Event::Blobs { .. } => (MessageKind::Blobs, "blobs"),
        Event::Call(CallEvent::Frame { to_executor: true, bytes, .. }) => {
            (MessageKind::Call, call_frame(bytes))
        }
        Event::Call(CallEvent::Frame { to_executor: false, bytes, .. }) => {
            (MessageKind::Answer, call_frame(bytes))
        }
        Event::Call(CallEvent::Closed { to_executor: true, .. }) => (MessageKind::Call, "stream closed"),
        Event::Call(CallEvent::Closed { .. }) => (MessageKind::Answer, "stream closed"),
        _ => (MessageKind::Close, "close"),
    }
}

fn link_message(bytes: &[u8]) -> (MessageKind, &'static str) {
    use MessageKind::{Admission, Adverts, Malformed, Ping, Reconcile};
    match LinkMessage::decode(bytes) {
        Ok(LinkMessage::Hello(_)) => (Admission, "hello"),
        Ok(LinkMessage::Refuse(_)) => (Admission, "refuse"),
        Ok(LinkMessage::Welcome(_)) => (Admission, "welcome"),
        Ok(LinkMessage::Update(_)) => (Admission, "update"),
        Ok(LinkMessage::Bye(_)) => (Admission, "bye"),
        Ok(LinkMessage::Ping { .. }) => (Ping, "ping"),
        Ok(LinkMessage::Pong { .. }) => (Ping, "pong"),
        Ok(LinkMessage::Orgs(_)) => (Reconcile, "orgs"),
        Ok(LinkMessage::Buckets(_)) => (Reconcile, "buckets"),
        Ok(LinkMessage::Entries(_)) => (Reconcile, "entries"),
        Ok(LinkMessage::Want(_)) => (Reconcile, "want"),
        Ok(LinkMessage::Rumours(_)) => (Ping, "rumours"),
        Ok(LinkMessage::Adverts(_)) => (Adverts, "adverts"),
        Ok(LinkMessage::Roots(_)) => (Adverts, "roots"),
        Err(_) => (Malformed, "no message"),
    }
}

/// The kind of a call's frame, which is its first byte.
fn call_frame(bytes: &[u8]) -> &'static str {
    use comity_protocol::call::frame::FrameKind;
    let names = [
        (FrameKind::Header, "header"),
        (FrameKind::Body, "body"),
        (FrameKind::Accept, "accept"),
        (FrameKind::Refuse, "refuse"),
        (FrameKind::Message, "message"),
        (FrameKind::Result, "result"),
        (FrameKind::Error, "error"),
        (FrameKind::Failed, "failed"),
        (FrameKind::Receipt, "receipt"),
        (FrameKind::Cancel, "cancel"),
    ];
    let found = names.into_iter().find(|(kind, _)| bytes.first() == Some(&(*kind as u8)));
    found.map_or("frame", |(_, name)| name)
}
