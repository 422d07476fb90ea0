//! What the command line asks of a running node.

use std::sync::Arc;

use comity_protocol::approval::Scope;
use comity_protocol::constraints::Constraints;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::Shared;
use crate::calls::CallGateway;
use crate::calls::demand::CONSTRAINTS_KEY;
use crate::control::messages::{
    CallReport, CallRequest, ControlFault, Event, FaultKind, Request, Response, RouteRequest, ToolInfo,
    ToolSelector, WhenOffline,
};
use crate::control::server::{ControlHandler, Events};
use crate::exchange::{Exchange, Incoming, Outcome};
use crate::gateway::{
    CallerContext, ClientProfile, Endpoint, Gateway, GatewayRequest, LOCAL_PRINCIPAL, Target, new_call_id,
};
use crate::world::Item;
use crate::world::keeper::Decision;
use comity_protocol::json::{self, RawObject};
use comity_protocol::jsonrpc::Message;

impl ControlHandler for Shared {
    async fn handle(&self, request: Request, events: Events) -> Result<Response, ControlFault> {
        match request {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Peers => Ok(Response::Peers(self.peers())),
            Request::Tools => Ok(Response::Tools(self.tools())),
            Request::ApproveTools(selector) => self.decide(selector, true).await,
            Request::RevokeTools(selector) => self.decide(selector, false).await,
            Request::Route(request) => self.route(&request),
            Request::Call(request) => self.call(request, &events).await,
            Request::Invite(request) => self.invite(request, events).await,
            Request::Join(request) => self.join(request, events).await,
            Request::Confirm(request) => self.confirm(&request),
            Request::Trust => Ok(Response::Trust(self.trust())),
            Request::Servers => Ok(Response::Servers(self.servers())),
        }
    }
}

fn usage(message: impl Into<String>) -> ControlFault {
    ControlFault::new(FaultKind::Usage, message)
}

fn not_found(what: &str) -> ControlFault {
    ControlFault::new(FaultKind::NotFound, format!("no tool is called {what}"))
        .next("see what there is: comity tools")
}

impl Shared {
    fn route(&self, request: &RouteRequest) -> Result<Response, ControlFault> {
        let world = self.world.load();
        let route = world.route(&request.tool).ok_or_else(|| not_found(&request.tool))?;
        let gateway_request = self.gateway_request(&request.tool, None, request.constraints.as_deref())?;
        let demand = self.calls.demand(&gateway_request).map_err(|failure| usage(failure.to_string()))?;
        Ok(Response::Route(self.route_report(&route, &demand)))
    }

    async fn call(&self, request: CallRequest, events: &Events) -> Result<Response, ControlFault> {
        if request.when_offline == WhenOffline::Queue {
            return Err(usage("this version keeps no calls for later").next("leave out --when-offline queue"));
        }
        if self.world.load().route(&request.tool).is_none() {
            return Err(not_found(&request.tool));
        }
        let call = self.gateway_request(
            &request.tool,
            request.arguments.as_deref(),
            request.constraints.as_deref(),
        )?;
        let exchange = CallGateway(self.calls.clone()).request(call);
        Ok(Response::Call(report(exchange, events).await))
    }

    /// A call as the command line makes it: the operator's own, under the endpoint's constraints and its own.
    fn gateway_request(
        &self,
        tool: &str,
        arguments: Option<&RawValue>,
        constraints: Option<&RawValue>,
    ) -> Result<GatewayRequest, ControlFault> {
        let mut params = RawObject::new();
        params.set_str("name", tool);
        params.set(
            "arguments",
            arguments.map_or_else(|| json::to_raw(&serde_json::json!({})), ToOwned::to_owned),
        );
        if let Some(constraints) = constraints {
            let mut meta = RawObject::new();
            meta.set(CONSTRAINTS_KEY, constraints.to_owned());
            params.set("_meta", meta.to_raw());
        }
        let call_id = new_call_id()
            .map_err(|error| ControlFault::new(FaultKind::Failed, format!("no randomness: {error}")))?;
        Ok(GatewayRequest {
            method: "tools/call".into(),
            endpoint: Endpoint::All,
            target: Target::tool(tool),
            params: params.to_raw(),
            caller: CallerContext {
                call_id,
                principal: LOCAL_PRINCIPAL.into(),
                endpoint_constraints: Arc::new(self.endpoint_constraints()),
                token_constraints: None,
                trace: None,
                deadline: None,
                client: ClientProfile::default(),
            },
        })
    }

    fn endpoint_constraints(&self) -> Constraints {
        self.config.borrow().constraints.clone()
    }

    async fn decide(&self, selector: ToolSelector, approve: bool) -> Result<Response, ControlFault> {
        let scopes = self.scopes(&selector)?;
        let (done, decided) = oneshot::channel();
        let decision = Decision { approve, scopes: scopes.clone(), done };
        let gone = || ControlFault::new(FaultKind::Failed, "the node is stopping");
        self.decisions.send(decision).await.map_err(|_| gone())?;
        decided.await.map_err(|_| gone())?.map_err(|error| {
            ControlFault::new(FaultKind::Failed, crate::telemetry::Chain(&error).to_string())
        })?;
        // The world shows the decision by now.
        let changed = self.tools().into_iter().filter(|tool| covers(&scopes, tool));
        Ok(Response::Tools(changed.collect()))
    }

    /// What a selector selects. An org or a server as a whole is decided upon as such, so that what comes later is
    /// covered too; otherwise each matching contract is.
    fn scopes(&self, selector: &ToolSelector) -> Result<Vec<Scope>, ControlFault> {
        let wrong = |error: comity_protocol::ids::IdError| usage(error.to_string());
        let org = selector.org.as_deref().map(str::parse).transpose().map_err(wrong)?;
        let server = selector.server.as_deref().map(str::parse).transpose().map_err(wrong)?;
        if let (Some(name), None, None, None) = (&selector.tool, &selector.contract, &org, &server)
            && let Some(scope) = self.wide_scope(name)
        {
            return Ok(vec![scope]);
        }
        match (&selector.tool, &selector.contract, org, server) {
            (None, None, Some(org), Some(server)) => Ok(vec![Scope::Server(org, server)]),
            (None, None, Some(org), None) => Ok(vec![Scope::Org(org)]),
            (None, None, None, _) => Err(usage("name an org, a tool or a contract")),
            _ => self.contract_scopes(selector),
        }
    }

    /// What a bare `ORG` or `ORG/SERVER` means, where there is such an org and no tool of that name.
    fn wide_scope(&self, name: &str) -> Option<Scope> {
        let world = self.world.load();
        if world.items_of(name).next().is_some() {
            return None;
        }
        let (org, server) = name.split_once('/').map_or((name, None), |(org, server)| (org, Some(server)));
        let org: comity_protocol::ids::OrgName = org.parse().ok()?;
        let pinned = self.trust().iter().any(|known| known.org == org.as_str());
        match server.map(str::parse) {
            None => pinned.then_some(Scope::Org(org)),
            Some(server) => server.ok().filter(|_| pinned).map(|server| Scope::Server(org, server)),
        }
    }

    fn contract_scopes(&self, selector: &ToolSelector) -> Result<Vec<Scope>, ControlFault> {
        let me = self.identity.node;
        let world = self.world.load();
        let matching = world.items.iter().filter(|item| {
            matches(selector, item) && !item.candidates.iter().any(|candidate| candidate.site.node == me)
        });
        let scopes: Vec<_> =
            matching.map(|item| Scope::Contract(item.capability.clone(), item.contract)).collect();
        if scopes.is_empty() {
            let what = selector.tool.as_deref().or(selector.contract.as_deref()).unwrap_or_default();
            return Err(not_found(what));
        }
        Ok(scopes)
    }
}

fn matches(selector: &ToolSelector, item: &Item) -> bool {
    let same =
        |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|wanted| wanted == actual);
    let capability = &item.capability;
    selector.tool.as_deref().is_none_or(|name| item.is_called(name))
        && same(&selector.org, capability.org.as_str())
        && same(&selector.server, capability.server.as_str())
        && same(&selector.contract, &item.contract.to_string())
}

fn covers(scopes: &[Scope], tool: &ToolInfo) -> bool {
    scopes.iter().any(|scope| match scope {
        Scope::Org(org) => org.as_str() == tool.org,
        Scope::Server(org, server) => org.as_str() == tool.org && server.as_str() == tool.server,
        Scope::Contract(capability, contract) => {
            capability.to_string() == tool.capability && contract.to_string() == tool.contract
        }
    })
}

/// Follows a call to its end, telling progress and logs as they come. Nobody here can answer a server's request.
async fn report(mut exchange: Exchange, events: &Events) -> CallReport {
    loop {
        match exchange.next().await {
            Incoming::Message(Message::Notification { method, params }) => {
                events.send(Event::Notification { method, params }).await;
            }
            Incoming::Message(Message::Request { id, method, .. }) => {
                let error = comity_protocol::jsonrpc::RpcError::new(
                    comity_protocol::jsonrpc::codes::METHOD_NOT_FOUND,
                    format!("the command line cannot answer {method}"),
                );
                let answer = crate::exchange::Outgoing::Message(Message::error(Some(id), &error));
                // A server that asks again after it has ended hears nothing.
                let _ = exchange.outgoing.send(answer).await;
            }
            Incoming::Message(_) => {}
            Incoming::Done(Outcome::Result(result)) => return CallReport::Result(result),
            Incoming::Done(Outcome::Error(error)) => return CallReport::Error(error),
            Incoming::Done(Outcome::Failed(failure)) => return CallReport::Failed(failure),
        }
    }
}
