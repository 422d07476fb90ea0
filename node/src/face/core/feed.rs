//! Notifications that belong to no call: lists and resources have changed.
//!
//! They are told by level, not by edge: a feed compares what its client was last told with what holds now. However
//! many changes come while a client is away or slow, one notification waits for it, and none is lost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use comity_protocol::{
    call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED},
    catalogue::Catalogue,
    ids::{CatalogueDigest, Kind},
    json::{self, RawObject},
    jsonrpc::{Id, Message},
};
use serde_json::{json, value::RawValue};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Core, Link};
use crate::face::{
    conversation::Conversation,
    door::Door,
    watches::{Holds, Watches},
};
use crate::gateway::Gateway;

/// How long a server may take to agree to a subscription before its client is told of the others.
const AGREE_MAX: Duration = Duration::from_secs(10);

/// The lists of which clients are told that they have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Tools,
    Prompts,
    Resources,
}

impl Group {
    const ALL: [Self; 3] = [Self::Tools, Self::Prompts, Self::Resources];

    const fn method(self) -> &'static str {
        match self {
            Self::Tools => "notifications/tools/list_changed",
            Self::Prompts => "notifications/prompts/list_changed",
            Self::Resources => "notifications/resources/list_changed",
        }
    }

    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Tools => &[Kind::Tool],
            Self::Prompts => &[Kind::Prompt],
            Self::Resources => &[Kind::Template, Kind::Resource],
        }
    }
}

/// What holds of each group of lists.
type Digests = [Vec<CatalogueDigest>; Group::ALL.len()];

fn digests(door: &Door, catalogue: &Arc<Catalogue>) -> Digests {
    let of = |kind: &Kind| door.listed(catalogue, *kind).digest(*kind);
    Group::ALL.map(|group| group.kinds().iter().map(of).collect())
}

/// What a client has been told, from one connection to the next.
#[derive(Debug, Default)]
pub(in crate::face) struct Told(Mutex<TellState>);

#[derive(Debug, Default)]
struct TellState {
    /// What the client knows of each group; nothing where nobody knows what it has heard.
    known: [Option<Vec<CatalogueDigest>>; Group::ALL.len()],
    /// The number of the last notification.
    sequence: u64,
}

impl Told {
    /// The client has just been told all that is there.
    pub(in crate::face) fn all(door: &Door, catalogue: &Arc<Catalogue>) -> Self {
        Self(Mutex::new(TellState { known: digests(door, catalogue).map(Some), sequence: 0 }))
    }

    /// The client has come back and has heard everything up to notification `heard`; `None` if nobody knows. Whether
    /// that was all.
    pub(in crate::face) fn resume(&self, heard: Option<u64>) -> bool {
        let mut state = self.lock();
        let all = heard == Some(state.sequence);
        if !all {
            state.known = Default::default();
        }
        all
    }

    /// The next group that the client must be told of, and the notification's number.
    fn due(&self, now: &Digests, catalogue: &Catalogue) -> Option<(u64, Group)> {
        let mut state = self.lock();
        for (at, group) in Group::ALL.into_iter().enumerate() {
            let known = state.known[at].replace(now[at].clone());
            let news = match known {
                Some(known) => known != now[at],
                // An empty list is what a client that knows nothing expects, but for tools, which it always asks for.
                None => {
                    group == Group::Tools
                        || group.kinds().iter().any(|kind| !catalogue.of_kind(*kind).is_empty())
                }
            };
            if news {
                state.sequence += 1;
                return Some((state.sequence, group));
            }
        }
        None
    }

    fn next_sequence(&self) -> u64 {
        let mut state = self.lock();
        state.sequence += 1;
        state.sequence
    }

    fn lock(&self) -> MutexGuard<'_, TellState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a legacy client of changes, from one connection to the next.
pub(in crate::face) struct ChangeFeed {
    gateway: Arc<dyn Gateway>,
    door: Arc<Door>,
    changes: watch::Receiver<u64>,
    told: Arc<Told>,
    conversation: Arc<Conversation>,
}

impl ChangeFeed {
    pub(in crate::face) fn new(
        core: &Core,
        door: Arc<Door>,
        told: Arc<Told>,
        conversation: Arc<Conversation>,
    ) -> Self {
        Self { gateway: core.gateway.clone(), door, changes: core.changes(), told, conversation }
    }

    /// The next notification and its number; `None` when the catalogue is gone. Cancel-safe.
    pub(in crate::face) async fn next(&mut self) -> Option<(u64, Message)> {
        loop {
            self.changes.mark_unchanged();
            if let Some(due) = self.due() {
                return Some(due);
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = self.conversation.watches.some() => {}
            }
        }
    }

    fn due(&self) -> Option<(u64, Message)> {
        // A server that is gone has no lists to tell of; it may come back.
        if let Some(catalogue) = self.door.catalogue(&*self.gateway)
            && let Some((number, group)) = self.told.due(&digests(&self.door, &catalogue), &catalogue)
        {
            return Some((number, Message::notification(group.method(), None)));
        }
        let params = self.conversation.watches.take()?;
        Some((self.told.next_sequence(), Message::notification(RESOURCE_UPDATED, Some(params))))
    }
}

/// What a `subscriptions/listen` asks to be told of.
#[derive(Debug, Default)]
pub(in crate::face) struct Filter {
    /// By group.
    pub(super) lists: [bool; Group::ALL.len()],
    /// Resources.
    pub(super) uris: Vec<String>,
}

/// A `subscriptions/listen` of 2026-07-28.
pub(in crate::face) struct Subscription {
    id: Id,
    /// The lists that it is told of: those that it asked for and that this endpoint has.
    lists: [bool; Group::ALL.len()],
    stage: Stage,
    gateway: Arc<dyn Gateway>,
    door: Arc<Door>,
    changes: watch::Receiver<u64>,
    known: Option<Digests>,
    /// What has changed and was not told yet.
    due: VecDeque<Group>,
    watches: Watches,
    draining: CancellationToken,
    link: Option<Link>,
}

#[derive(Debug)]
enum Stage {
    /// Waiting until it is known which resources are watched: those still in question, those that are, until when.
    Opening {
        asked: VecDeque<(String, Holds)>,
        agreed: Vec<String>,
        until: Instant,
    },
    Open,
    Closed,
}

impl Subscription {
    /// Subscribes. `watches` are the resources that were asked for, each with whoever hears whether it holds.
    pub(super) fn new(
        id: Id,
        wanted: [bool; Group::ALL.len()],
        (watches, asked): (Watches, VecDeque<(String, Holds)>),
        link: Option<Link>,
        core: &Core,
        door: Arc<Door>,
    ) -> Self {
        let mut changes = core.changes();
        changes.mark_unchanged();
        let catalogue = door.catalogue(&*core.gateway);
        let capabilities = catalogue.as_deref().map(|catalogue| door.about(catalogue).capabilities);
        let has = |name| capabilities.as_deref().is_some_and(|all| json::path(all, &[name]).is_some());
        let there = [has("tools"), has("prompts"), has("resources")];
        Self {
            id,
            lists: std::array::from_fn(|at| wanted[at] && there[at]),
            stage: Stage::Opening { asked, agreed: Vec::new(), until: Instant::now() + AGREE_MAX },
            gateway: core.gateway.clone(),
            known: catalogue.as_ref().map(|catalogue| digests(&door, catalogue)),
            door,
            changes,
            due: VecDeque::new(),
            watches,
            draining: core.draining.clone(),
            link,
        }
    }

    /// The next message: the acknowledgement, then changes, at last the result when the node goes down. `None` once
    /// that is sent or the client has cancelled. Cancel-safe.
    pub(in crate::face) async fn next(&mut self) -> Option<Message> {
        if let Stage::Opening { asked, agreed, until } = &mut self.stage {
            agree(asked, agreed, *until).await;
            let agreed = std::mem::take(agreed);
            self.stage = Stage::Open;
            return Some(self.acknowledgement(&agreed));
        }
        if matches!(self.stage, Stage::Closed) {
            return None;
        }
        loop {
            if let Some(group) = self.due.pop_front() {
                return Some(self.notification(group.method(), RawObject::new()));
            }
            if let Some(params) = self.watches.take() {
                return Some(
                    self.notification(RESOURCE_UPDATED, RawObject::parse(&params).unwrap_or_default()),
                );
            }
            let cancelled = async {
                match &mut self.link {
                    Some(link) => link.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = cancelled => {
                    self.stage = Stage::Closed;
                    return None;
                }
                () = self.draining.cancelled() => return Some(self.close()),
                () = self.watches.some() => {}
                change = self.changes.changed() => match change {
                    Ok(()) => self.compare(),
                    Err(_) => return Some(self.close()),
                },
            }
        }
    }

    /// Finds out which of the lists have changed.
    fn compare(&mut self) {
        let Some(catalogue) = self.door.catalogue(&*self.gateway) else { return };
        let now = digests(&self.door, &catalogue);
        let known = self.known.replace(now.clone());
        for (at, group) in Group::ALL.into_iter().enumerate() {
            let news = known.as_ref().is_none_or(|known| known[at] != now[at]);
            if self.lists[at] && news && !self.due.contains(&group) {
                self.due.push_back(group);
            }
        }
    }

    fn acknowledgement(&self, agreed: &[String]) -> Message {
        let mut accepted = serde_json::Map::new();
        let names = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
        for (name, _) in names.into_iter().zip(self.lists).filter(|(_, wanted)| *wanted) {
            accepted.insert(name.to_owned(), true.into());
        }
        if !agreed.is_empty() {
            accepted.insert("resourceSubscriptions".to_owned(), agreed.into());
        }
        let params = json!({ "_meta": { SUBSCRIPTION_ID: self.id }, "notifications": accepted });
        Message::notification(ACKNOWLEDGED, Some(json::to_raw(&params)))
    }

    fn notification(&self, method: &str, mut params: RawObject) -> Message {
        let mut meta = params.get_object("_meta").ok().flatten().unwrap_or_default();
        meta.set(SUBSCRIPTION_ID, self.id.to_raw());
        params.set("_meta", meta.to_raw());
        Message::notification(method, Some(params.to_raw()))
    }

    fn close(&mut self) -> Message {
        self.stage = Stage::Closed;
        let about = self.door.catalogue(&*self.gateway).map(|catalogue| self.door.about(&catalogue));
        let mut meta = RawObject::new();
        if let Some(about) = about {
            meta.set("io.modelcontextprotocol/serverInfo", about.info);
        }
        meta.set(SUBSCRIPTION_ID, self.id.to_raw());
        let mut result = RawObject::new();
        result.set_str("resultType", "complete");
        result.set("_meta", meta.to_raw());
        let result: Box<RawValue> = result.to_raw();
        Message::Response { id: self.id.clone(), result }
    }
}

/// Waits until each server has agreed or not, or there is no more time. Cancel-safe.
async fn agree(asked: &mut VecDeque<(String, Holds)>, agreed: &mut Vec<String>, until: Instant) {
    while let Some((_, holds)) = asked.front_mut() {
        let Ok(held) = tokio::time::timeout_at(until, holds).await else { return };
        if let Some((uri, _)) = asked.pop_front()
            && matches!(held, Ok(Ok(())))
        {
            agreed.push(uri);
        }
    }
}

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
