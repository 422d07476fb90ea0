//! The endpoint for operators.

use std::net::SocketAddr;

use crate::config::section::Section;

/// The `[admin]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where health, metrics and the dashboard are served.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 7421)) }
    }
}

impl AdminConfig {
    /// Reads the section.
    pub fn read(mut section: Section<'_>) -> Self {
        let config = AdminConfig { listen: section.or("listen", AdminConfig::default().listen) };
        if !config.listen.ip().is_loopback() {
            let problem = format!("{} can be reached from other machines", config.listen);
            section.warning(
                "listen",
                problem,
                "it shows peers and traffic to whoever asks; prefer 127.0.0.1",
            );
        }
        section.finish();
        config
    }
}
