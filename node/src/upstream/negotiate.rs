//! Finding out which era a server speaks.
//!
//! `server/discover` is asked first, also over stdio. Measured: a server on the Python SDK 2.3 speaks
//! both eras and settles on the one that it is first spoken to in; servers on the Python SDK 1.30 and
//! on the TypeScript SDK 1.29 refuse the unknown method with -32602 and -32601 and then take
//! `initialize` on the same pipe. The modern era is worth asking for: in it nothing that a server says
//! during a call is ambiguous, and it can be bridged to clients of both eras without state.
//!
//! Servers that do worse than refuse are provided for. One that stays silent is asked `initialize`
//! after [`PROBE_PATIENCE`], and whichever question it answers counts. One that dies of the question
//! is asked the other one first when it is next started: [`First`] alternates with each failure.

use std::time::Duration;

use comity_protocol::json;
use comity_protocol::jsonrpc::Message;
use tokio::time::timeout;

use super::config::EraChoice;
use super::profile::{self, Era, ProfileError, ServerProfile};
use super::session::{Link, RequestError, Session};
use crate::exchange::Failure;

/// How long a server may leave `server/discover` unanswered before it is asked `initialize` too.
/// Programs that take longer to start are asked both, which does no harm.
const PROBE_PATIENCE: Duration = Duration::from_secs(4);

/// Which question is asked first of a server whose era is not configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum First {
    /// `server/discover`.
    #[default]
    Discover,
    /// `initialize`.
    Initialize,
}

impl First {
    /// The other one.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Discover => Self::Initialize,
            Self::Initialize => Self::Discover,
        }
    }
}

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum NegotiateError {
    /// The server refused, or did not answer.
    #[error("{method}: {source}")]
    Request {
        /// What it was asked.
        method: &'static str,
        /// What came of it.
        source: RequestError,
    },
    /// It answered with something that cannot be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// It accepted the handshake but not its end.
    #[error("notifications/initialized: {0}")]
    Initialized(Failure),
    /// Neither era worked.
    #[error("neither era: {discover}; {initialize}")]
    Neither {
        /// What came of `server/discover`.
        discover: Box<NegotiateError>,
        /// What came of `initialize`.
        initialize: Box<NegotiateError>,
    },
}

/// Opens the session: afterwards its profile is set and requests can be made.
pub(super) async fn negotiate(
    session: &Session,
    choice: EraChoice,
    first: First,
    patience: Duration,
) -> Result<(), NegotiateError> {
    let profile = match (choice, first) {
        (EraChoice::Modern, _) => discover(session, patience).await?,
        (EraChoice::Legacy, _) => initialize(session, patience).await?,
        (EraChoice::Auto, First::Discover) => probe(session, patience).await?,
        (EraChoice::Auto, First::Initialize) => match initialize(session, patience).await {
            Ok(profile) => profile,
            Err(error) => discover(session, patience).await.map_err(|other| neither(other, error))?,
        },
    };
    settle(session, profile).await
}

async fn probe(session: &Session, patience: Duration) -> Result<ServerProfile, NegotiateError> {
    let discovering = discover(session, patience);
    tokio::pin!(discovering);
    let early = timeout(PROBE_PATIENCE, &mut discovering).await;
    let initializing = initialize(session, patience);
    match early {
        Ok(Ok(profile)) => return Ok(profile),
        Ok(Err(error)) => return initializing.await.map_err(|other| neither(error, other)),
        Err(_) => {}
    }
    tokio::pin!(initializing);
    tokio::select! {
        discovered = &mut discovering => match discovered {
            Ok(profile) => Ok(profile),
            Err(error) => initializing.await.map_err(|other| neither(error, other)),
        },
        initialized = &mut initializing => match initialized {
            Ok(profile) => Ok(profile),
            Err(error) => discovering.await.map_err(|other| neither(other, error)),
        },
    }
}

async fn discover(session: &Session, patience: Duration) -> Result<ServerProfile, NegotiateError> {
    const METHOD: &str = "server/discover";
    let params = json::to_raw(&serde_json::json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": profile::MODERN_VERSION,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": profile::client_info(),
    }}));
    let result = session.request(METHOD, Some(&params), patience).await;
    let result = result.map_err(|source| NegotiateError::Request { method: METHOD, source })?;
    Ok(ServerProfile::from_discover(&result)?)
}

async fn initialize(session: &Session, patience: Duration) -> Result<ServerProfile, NegotiateError> {
    const METHOD: &str = "initialize";
    let result = session.request(METHOD, Some(&profile::initialize_params()), patience).await;
    let result = result.map_err(|source| NegotiateError::Request { method: METHOD, source })?;
    Ok(ServerProfile::from_initialize(&result)?)
}

async fn settle(session: &Session, profile: ServerProfile) -> Result<(), NegotiateError> {
    let era = profile.era;
    if let Link::Http(http) = session.link() {
        http.set_version(&profile.version);
    }
    session.set_profile(profile);
    if era == Era::Legacy {
        let initialized = Message::notification("notifications/initialized", None);
        match session.link() {
            Link::Pipe(_) => session.send(&initialized),
            // Requests could overtake it if it were queued.
            Link::Http(http) => {
                http.post_message(&initialized).await.map_err(NegotiateError::Initialized)?;
            }
        }
    }
    Ok(())
}

fn neither(discover: NegotiateError, initialize: NegotiateError) -> NegotiateError {
    NegotiateError::Neither { discover: discover.into(), initialize: initialize.into() }
}
