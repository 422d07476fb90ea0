//! Which methods a call may have, and what each is asked of.
//!
//! The kind of the capability decides: what an operator approved as a prompt is never called as a tool. A server itself
//! takes every method that neither belongs to one of its items nor to a session: those are carried without being
//! understood, and the server has the last word on whether it knows them.

use crate::ids::Kind;

/// A client wants to be told of a resource's changes. The call lasts for as long as it is wanted: the executor says
/// [`ACKNOWLEDGED`] when the server has agreed, then a [`RESOURCE_UPDATED`] for each change, and gives no result.
pub const SUBSCRIBE: &str = "resources/subscribe";

/// The first message of a subscription.
pub const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// A resource has changed.
pub const RESOURCE_UPDATED: &str = "notifications/resources/updated";

/// What follows up the task with which a tool's server answered a call. The id is the executor's: it knows whose it is.
pub const FOLLOW_UPS: [&str; 3] = ["tasks/get", "tasks/update", "tasks/cancel"];

/// Methods that belong to a session or to this node's own part in it, and are never carried.
const OF_SESSIONS: [&str; 6] = [
    "initialize",
    "ping",
    "server/discover",
    "logging/setLevel",
    "subscriptions/listen",
    "resources/unsubscribe",
];

/// Beginnings of methods that belong to items, to clients, or are no requests.
const NOT_OF_SERVERS: [&str; 8] =
    ["tools/", "tasks/", "prompts/", "resources/", "notifications/", "sampling/", "elicitation/", "roots/"];

/// Whether `method` can be asked of a capability of this kind.
pub fn is_routed(kind: Kind, method: &str) -> bool {
    match kind {
        Kind::Tool => method == "tools/call" || FOLLOW_UPS.contains(&method),
        Kind::Prompt => matches!(method, "prompts/get" | "completion/complete"),
        Kind::Template => matches!(method, "resources/read" | "completion/complete" | SUBSCRIBE),
        Kind::Resource => matches!(method, "resources/read" | SUBSCRIBE),
        Kind::Server => matches!(method, "resources/read" | SUBSCRIBE) || is_vendors(method),
    }
}

/// Whether a request may be sent again although it may have been run before: it only reads.
pub fn is_repeatable(method: &str) -> bool {
    matches!(method, "resources/read" | "prompts/get" | "completion/complete" | SUBSCRIBE)
}

/// Whether a method belongs neither to an item nor to a session: what the node does not know and a server may.
pub fn is_vendors(method: &str) -> bool {
    !method.is_empty()
        && !OF_SESSIONS.contains(&method)
        && !NOT_OF_SERVERS.iter().any(|prefix| method.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_its_own_methods() {
        let taken = |kind: Kind| {
            let all = [
                "tools/call",
                "tools/list",
                "prompts/get",
                "resources/read",
                SUBSCRIBE,
                "resources/list",
                "completion/complete",
                "initialize",
                "ping",
                "vendor/thing",
                "tasks/get",
                "notifications/x",
                "",
            ];
            all.into_iter().filter(|method| is_routed(kind, method)).collect::<Vec<_>>()
        };
        assert_eq!(taken(Kind::Tool), ["tools/call", "tasks/get"]);
        assert_eq!(taken(Kind::Prompt), ["prompts/get", "completion/complete"]);
        assert_eq!(taken(Kind::Template), ["resources/read", SUBSCRIBE, "completion/complete"]);
        assert_eq!(taken(Kind::Resource), ["resources/read", SUBSCRIBE]);
        let server = ["resources/read", SUBSCRIBE, "completion/complete", "vendor/thing"];
        assert_eq!(taken(Kind::Server), server);
    }

    #[test]
    fn only_what_reads_is_repeated() {
        assert!(
            is_repeatable("resources/read") && !is_repeatable("tools/call") && !is_repeatable("tasks/get")
        );
    }
}
