//! `Host` and `Origin` checks: what keeps a web page from driving a node on its visitor's machine by DNS rebinding.
//!
//! Source: MCP "Streamable HTTP", section "Security" of each revision: an unacceptable `Origin` is answered with 403.

use std::net::{IpAddr, SocketAddr};

use hyper::{HeaderMap, Uri, header, http::uri::Authority};

/// What `Host` and `Origin` may be on one endpoint.
#[derive(Debug, Default)]
pub(super) struct Guard {
    hosts: Vec<HostRule>,
    origins: Vec<OriginRule>,
}

/// Why a request was turned away. Answered with 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// The `Host` is none of ours.
    Host,
    /// The `Origin` is none that may call.
    Origin,
}

impl Forbidden {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Host => "Forbidden: this Host is not served here (see mcp.allowed_hosts)",
            Self::Origin => "Forbidden: this Origin may not call (see mcp.allowed_origins)",
        }
    }
}

/// Names under which a machine reaches itself.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Guard {
    /// Loopback names always pass; so does the address listened on, if it is a particular one.
    /// An entry that cannot be read matches nothing (the configuration check names it).
    pub(super) fn new(listen: Option<SocketAddr>, hosts: &[String], origins: &[String]) -> Self {
        let own = listen.map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
        let names = LOOPBACK_NAMES.into_iter().map(str::to_owned).chain(own.as_ref().map(IpAddr::to_string));
        let local = names.map(|name| HostRule { name, port: None });
        let local_origins = LOOPBACK_NAMES.iter().flat_map(|name| {
            let rule = |scheme: &str| OriginRule::Web {
                scheme: scheme.into(),
                name: (*name).into(),
                port: Port::Any,
            };
            [rule("http"), rule("https")]
        });
        Self {
            hosts: local.chain(hosts.iter().filter_map(|host| HostRule::parse(host))).collect(),
            origins: local_origins
                .chain(origins.iter().filter_map(|origin| OriginRule::parse(origin)))
                .collect(),
        }
    }

    /// Checks one request. No `Origin` is fine: only browsers send it.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Forbidden> {
        let host = sole(headers, header::HOST).map_err(|()| Forbidden::Host)?;
        let authority = match host {
            Some(host) => host.parse::<Authority>().ok(),
            None => uri.authority().cloned(),
        };
        if !authority.is_some_and(|authority| self.hosts.iter().any(|rule| rule.matches(&authority))) {
            return Err(Forbidden::Host);
        }
        match sole(headers, header::ORIGIN) {
            Ok(None) => Ok(()),
            Ok(Some(origin)) if self.origins.iter().any(|rule| rule.matches(origin)) => Ok(()),
            _ => Err(Forbidden::Origin),
        }
    }
}

/// The only value of a header; an error when there are two or it is no text.
fn sole(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(());
    }
    first.map(|value| value.to_str().map_err(|_| ())).transpose()
}

#[derive(Debug, PartialEq, Eq)]
struct HostRule {
    name: String,
    port: Option<u16>,
}

impl HostRule {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.parse::<IpAddr>().is_ok() {
            return Some(Self { name: text.to_ascii_lowercase(), port: None });
        }
        let authority = text.parse::<Authority>().ok()?;
        Some(Self { name: bare(authority.host()), port: authority.port_u16() })
    }

    fn matches(&self, authority: &Authority) -> bool {
        let same_name = self.name.eq_ignore_ascii_case(unbracketed(authority.host()));
        same_name && self.port.is_none_or(|port| authority.port_u16() == Some(port))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum OriginRule {
    /// What a browser says for `file:` pages and sandboxed frames.
    Null,
    Web {
        scheme: String,
        name: String,
        port: Port,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Port {
    Any,
    /// `None` is the scheme's default port, which browsers leave out.
    Exactly(Option<u16>),
}

impl OriginRule {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "null" {
            return Some(Self::Null);
        }
        let (base, any) = text.strip_suffix(":*").map_or((text, false), |base| (base, true));
        let (scheme, authority) = split_origin(base)?;
        let port = if any { Port::Any } else { Port::Exactly(explicit_port(&scheme, authority.port_u16())) };
        Some(Self::Web { name: bare(authority.host()), scheme, port })
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Null => origin == "null",
            Self::Web { scheme, name, port } => split_origin(origin).is_some_and(|(of_scheme, authority)| {
                let of_port = explicit_port(&of_scheme, authority.port_u16());
                *scheme == of_scheme
                    && name.eq_ignore_ascii_case(unbracketed(authority.host()))
                    && (*port == Port::Any || *port == Port::Exactly(of_port))
            }),
        }
    }
}

fn split_origin(origin: &str) -> Option<(String, Authority)> {
    let (scheme, authority) = origin.split_once("://")?;
    Some((scheme.to_ascii_lowercase(), authority.parse().ok()?))
}

fn explicit_port(scheme: &str, port: Option<u16>) -> Option<u16> {
    port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)))
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn bare(host: &str) -> String {
    unbracketed(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, host: &str, origin: Option<&str>) -> Result<(), Forbidden> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        guard.check(&Uri::from_static("/mcp"), &headers)
    }

    #[test]
    fn loopback_passes_by_default_and_nothing_else() {
        let guard = Guard::new(Some("127.0.0.1:7420".parse().unwrap()), &[], &[]);
        for host in ["localhost", "LOCALHOST:7420", "127.0.0.1:1", "[::1]:7420", "[::1]"] {
            assert_eq!(check(&guard, host, None), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.2", "", "local host", "0.0.0.0"] {
            assert_eq!(check(&guard, host, None), Err(Forbidden::Host), "{host}");
        }
        for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:9"] {
            assert_eq!(check(&guard, "localhost", Some(origin)), Ok(()), "{origin}");
        }
        for origin in
            ["https://evil.example", "null", "", "localhost", "file://", "http://localhost.evil.example"]
        {
            assert_eq!(check(&guard, "localhost", Some(origin)), Err(Forbidden::Origin), "{origin}");
        }
    }

    #[test]
    fn configured_names_pass() {
        let hosts = ["node.example".into(), "pinned.example:8443".into(), "::2".into()];
        let origins = ["https://app.example".into(), "http://dev.example:*".into(), "null".into()];
        let guard = Guard::new(Some("10.0.0.7:7420".parse().unwrap()), &hosts, &origins);
        for host in ["node.example:1", "pinned.example:8443", "10.0.0.7:7420", "[::2]:80"] {
            assert_eq!(check(&guard, host, None), Ok(()), "{host}");
        }
        assert_eq!(check(&guard, "pinned.example:80", None), Err(Forbidden::Host));
        for origin in ["https://app.example", "https://APP.example:443", "http://dev.example:81", "null"] {
            assert_eq!(check(&guard, "node.example", Some(origin)), Ok(()), "{origin}");
        }
        for origin in ["http://app.example", "https://app.example:444", "https://dev.example"] {
            assert_eq!(check(&guard, "node.example", Some(origin)), Err(Forbidden::Origin), "{origin}");
        }
    }

    #[test]
    fn doubled_and_missing_headers_are_refused() {
        let guard = Guard::new(None, &[], &[]);
        let mut headers = HeaderMap::new();
        assert_eq!(guard.check(&Uri::from_static("/mcp"), &headers), Err(Forbidden::Host));
        assert_eq!(guard.check(&Uri::from_static("http://localhost/mcp"), &headers), Ok(()));
        headers.append(header::HOST, "localhost".parse().unwrap());
        headers.append(header::HOST, "evil.example".parse().unwrap());
        assert_eq!(guard.check(&Uri::from_static("/mcp"), &headers), Err(Forbidden::Host));
    }
}
