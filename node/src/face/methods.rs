//! Which methods exist, and in which era: the one table to extend when the face learns more of MCP.
//!
//! A method that is not here is answered with `-32601` by name, and nothing advertises it; only at an endpoint of one
//! server is it carried to that server, which knows best.

use comity_protocol::{
    ids::Kind,
    jsonrpc::{RpcError, codes},
};

use crate::gateway::Era;

/// A request that the face knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Opens a legacy session; each transport does that in its own way.
    Initialize,
    Ping,
    SetLevel,
    Discover,
    Listen,
    List(List),
    CallTool,
    GetPrompt,
    ReadResource,
    Subscribe,
    Unsubscribe,
    Complete,
    /// Follows up a task; see [`crate::input::TASKS_EXTENSION`].
    FollowTask,
}

/// A list that clients fetch page by page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl List {
    /// What it lists.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Tools => Kind::Tool,
            Self::Prompts => Kind::Prompt,
            Self::Resources => Kind::Resource,
            Self::Templates => Kind::Template,
        }
    }

    /// The member of the result that holds it.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }
}

/// In which eras a method exists.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Legacy,
    Modern,
    Both,
}

const TABLE: [(&str, Method, In); 18] = [
    ("tools/call", Method::CallTool, In::Both),
    ("resources/read", Method::ReadResource, In::Both),
    ("prompts/get", Method::GetPrompt, In::Both),
    ("tools/list", Method::List(List::Tools), In::Both),
    ("prompts/list", Method::List(List::Prompts), In::Both),
    ("resources/list", Method::List(List::Resources), In::Both),
    ("resources/templates/list", Method::List(List::Templates), In::Both),
    ("completion/complete", Method::Complete, In::Both),
    ("tasks/get", Method::FollowTask, In::Modern),
    ("tasks/update", Method::FollowTask, In::Modern),
    ("tasks/cancel", Method::FollowTask, In::Modern),
    ("resources/subscribe", Method::Subscribe, In::Legacy),
    ("resources/unsubscribe", Method::Unsubscribe, In::Legacy),
    ("ping", Method::Ping, In::Legacy),
    ("initialize", Method::Initialize, In::Legacy),
    ("logging/setLevel", Method::SetLevel, In::Legacy),
    ("server/discover", Method::Discover, In::Modern),
    ("subscriptions/listen", Method::Listen, In::Modern),
];

/// Finds a method.
///
/// # Errors
/// `-32601`, naming the method.
pub(super) fn find(name: &str, era: Era) -> Result<Method, RpcError> {
    let here = |known: In| {
        matches!((known, era), (In::Both, _) | (In::Legacy, Era::Legacy) | (In::Modern, Era::Modern))
    };
    let entry = TABLE.into_iter().find(|(known, _, eras)| *known == name && here(*eras));
    entry.map(|(_, method, _)| method).ok_or_else(|| {
        let name: String = name.chars().take(NAME_CHARS_SHOWN).collect();
        RpcError::new(codes::METHOD_NOT_FOUND, format!("Method not found: {name}"))
    })
}

/// Whether the node knows the method in some era. What it knows in the other one only is nobody's to carry: there it means
/// something else to the nodes, as `resources/subscribe` does, which never ends.
pub(super) fn is_known(name: &str) -> bool {
    TABLE.into_iter().any(|(known, ..)| known == name)
}

/// How much of an unknown method's name is echoed.
const NAME_CHARS_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eras_keep_their_own_methods() {
        assert!(is_known("resources/subscribe") && !is_known("vendor/anything"));
        assert_eq!(find("ping", Era::Legacy).unwrap(), Method::Ping);
        assert_eq!(find("tools/call", Era::Modern).unwrap(), Method::CallTool);
        for (name, era) in
            [("ping", Era::Modern), ("server/discover", Era::Legacy), ("resources/subscribe", Era::Modern)]
        {
            let error = find(name, era).unwrap_err();
            assert_eq!(
                (error.code, error.message),
                (codes::METHOD_NOT_FOUND, format!("Method not found: {name}"))
            );
        }
    }
}
