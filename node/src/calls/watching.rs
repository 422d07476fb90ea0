//! Subscriptions: calls that last, and are made again when they end.
//!
//! To its client a subscription is one exchange: an acknowledgement, then a notification for each change, for as long as
//! the client wants it. Behind it is one call after another, each decided and run like any other. When one ends (its
//! executor is gone, the link is lost, its hour is over) the next is tried until it holds, ever less often; the client
//! is then told of a change, because it may have missed one.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::call::methods::{ACKNOWLEDGED, RESOURCE_UPDATED};
use comity_protocol::json::RawObject;
use comity_protocol::jsonrpc::Message;
use serde_json::value::RawValue;
use tokio::time::sleep;
use tracing::debug;

use super::rename::restored_uri;
use super::{Calls, failed, outgoing};
use crate::exchange::{Exchange, ExchangePeer, Failure, Incoming, Outcome, Outgoing, exchange};
use crate::gateway::{GatewayRequest, Target, new_call_id};
use crate::upstream::Backoff;

/// How long one of the calls behind a subscription lasts at most: what is decided of it is decided anew then.
pub(super) const LIFE: Duration = Duration::from_secs(60 * 60);

/// Starts a subscription; whatever goes wrong before it holds is told as the outcome.
pub(super) fn start(calls: &Arc<Calls>, request: GatewayRequest) -> Exchange {
    let Ok(permit) = calls.watches.clone().try_acquire_owned() else {
        let detail = "this node has as many subscriptions as it may".into();
        return Exchange::failed(Failure::Overloaded { handed_over: false, detail });
    };
    let (exchange, peer) = exchange();
    let calls = calls.clone();
    calls.tasks.clone().spawn(async move {
        let _permit = permit;
        let mut watching = Watching { calls, request, peer, held: false, own: String::new() };
        let outcome = watching.run().await;
        watching.peer.finish(outcome);
    });
    exchange
}

struct Watching {
    calls: Arc<Calls>,
    request: GatewayRequest,
    peer: ExchangePeer,
    /// Whether the client has been told that it holds.
    held: bool,
    /// What the server calls it.
    own: String,
}

/// How one of the calls behind a subscription ended.
enum End {
    /// The client wants no more, or this node stops.
    Over,
    /// The call ended; whether it had held.
    Lost(Outcome, bool),
}

impl Watching {
    async fn run(&mut self) -> Outcome {
        let mut backoff = Backoff::default();
        loop {
            let (outcome, held) = match self.once().await {
                End::Over => return failed(Failure::Cancelled { handed_over: true }),
                End::Lost(outcome, held) => (outcome, held),
            };
            if !self.held {
                return outcome;
            }
            debug!(?outcome, "a subscription was lost");
            if held {
                backoff.reset();
            }
            tokio::select! {
                () = sleep(backoff.next()) => {}
                () = self.over() => return failed(Failure::Cancelled { handed_over: true }),
            }
        }
    }

    /// One call, from its decision to its end.
    async fn once(&mut self) -> End {
        let Ok(call_id) = new_call_id() else {
            let detail = "the operating system has no randomness".to_owned();
            return End::Lost(failed(Failure::Internal { handed_over: false, detail }), false);
        };
        let mut request = self.request.clone();
        request.caller.call_id = call_id;
        let (mut call, server) = exchange();
        let calls = self.calls.clone();
        let running = outgoing::run(&calls, request, server);
        tokio::pin!(running);
        let (mut held, mut ended) = (false, false);
        loop {
            tokio::select! {
                () = &mut running, if !ended => ended = true,
                incoming = call.next() => match incoming {
                    Incoming::Done(outcome) => return End::Lost(outcome, held),
                    Incoming::Message(message) => held |= self.tell(message),
                },
                () = self.over() => return End::Over,
            }
        }
    }

    /// Tells the client; whether the message says that the subscription holds. A client that reads slowly misses no
    /// change: what waits for it says already that it must look again.
    fn tell(&mut self, message: Message) -> bool {
        let holds = message.method() == Some(ACKNOWLEDGED);
        let params = message.params().and_then(|params| RawObject::parse(params).ok()).unwrap_or_default();
        if holds {
            self.own = params.get_str("uri").unwrap_or_default().into_owned();
        }
        let method = if holds && !self.held { ACKNOWLEDGED } else { RESOURCE_UPDATED };
        self.held |= holds;
        // Full: a change waits already. Gone: the other half says so.
        let _ = self.peer.sender.try_send(Message::notification(method, Some(self.in_clients_terms(params))));
        holds
    }

    fn in_clients_terms(&self, mut params: RawObject) -> Box<RawValue> {
        let asked = match &self.request.target {
            Target::Item(_, asked) => asked.as_str(),
            Target::Server | Target::Task(_) => self.own.as_str(),
        };
        let uri = params.get_str("uri").map(|uri| restored_uri(&uri, &self.own, asked));
        if let Some(uri) = uri {
            params.set_str("uri", &uri);
        }
        params.to_raw()
    }

    /// Waits until nobody wants it any more. Cancel-safe.
    async fn over(&mut self) {
        let stopping = self.calls.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = cancelled(&mut self.peer) => {}
        }
    }
}

/// Anything else that a client says is not for a subscription.
async fn cancelled(peer: &mut ExchangePeer) {
    while let Some(Outgoing::Message(_)) = peer.outgoing.recv().await {}
}
