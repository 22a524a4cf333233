//! Where the nodes are kept, checked before anything is asked of the servers.

use std::{fmt, time::Duration};

use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error};

use crate::membership::{MembershipError, NodeId};

/// Where the nodes are kept, and who may see them.
pub struct Settings {
    /// `host:port`, with commas between them.
    pub servers: String,
    /// The path under which everything is; made where it is missing. Two clusters with two roots don't see each
    /// other.
    pub root: String,
    /// `user:password` (digest): what is written is for this user only. `None`: for whoever reaches the servers.
    pub auth: Option<String>,
    /// A node that is silent for as long is gone. The servers have bounds for it.
    pub session_timeout: Duration,
}

/// Settings that may be right.
pub(super) struct Place(Settings);

impl Place {
    pub(super) fn new(settings: Settings) -> Result<Self, MembershipError> {
        let wrong = |reason: String| Err(MembershipError { reason });
        let Settings { servers, root, auth, session_timeout } = &settings;
        if let Some(server) = servers.split(',').find(|server| !is_server(server)) {
            return wrong(format!(
                "`{server}` is no ZooKeeper server: name each as host:port, commas between"
            ));
        }
        if !is_path(root) {
            return wrong(format!("`{root}` is no root in ZooKeeper: name a path as in /xpush"));
        }
        if auth.as_ref().is_some_and(|auth| auth.split_once(':').is_none_or(|(user, _)| user.is_empty())) {
            return wrong("the credentials for ZooKeeper are not of the form user:password".into());
        }
        if session_timeout.is_zero() {
            return wrong(
                "a ZooKeeper session's time-out can't be 0: every node would be gone at once".into(),
            );
        }
        Ok(Self(settings))
    }

    /// A new session. Each server is tried once.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        let Settings { servers, auth, session_timeout, .. } = &self.0;
        let mut connector = Client::connector().with_session_timeout(*session_timeout).with_fail_eagerly();
        if let Some(auth) = auth {
            connector = connector.with_auth("digest", auth.as_bytes());
        }
        connector.connect(servers).await
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}/nodes", self.0.root)
    }

    pub(super) fn node(&self, id: &NodeId) -> String {
        format!("{}/nodes/{id}", self.0.root)
    }

    pub(super) fn config(&self) -> String {
        format!("{}/config", self.0.root)
    }

    pub(super) fn create(&self, mode: CreateMode) -> CreateOptions<'static> {
        mode.with_acls(if self.0.auth.is_some() { Acls::creator_all() } else { Acls::anyone_all() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.servers)
    }
}

fn is_server(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    // The client would take `/` for a root of its own, and a scheme for TLS.
    let named = !host.is_empty() && !host.contains(|c: char| c == '/' || c.is_whitespace());
    named && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_path(text: &str) -> bool {
    let is_name =
        |name: &str| !["", ".", "..", "zookeeper"].contains(&name) && !name.contains(char::is_control);
    text.strip_prefix('/').is_some_and(|names| names.split('/').all(is_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            servers: "zoo-1:2181,[::1]:2182".into(),
            root: "/live/xpush".into(),
            auth: Some("xpush:a:b".into()),
            session_timeout: Duration::from_secs(6),
        }
    }

    #[test]
    fn settings_that_can_not_be_right_are_refused() {
        assert!(Place::new(settings()).is_ok());
        for servers in
            ["", "zoo", "zoo:", ":2181", "zoo:0", "zoo:2181,", "tcp+tls://zoo:2181", "zoo:2181/xpush"]
        {
            assert!(Place::new(Settings { servers: servers.into(), ..settings() }).is_err(), "{servers}");
        }
        for root in ["", "/", "xpush", "/xpush/", "/a//b", "/a/../b", "/zookeeper/quota"] {
            assert!(Place::new(Settings { root: root.into(), ..settings() }).is_err(), "{root}");
        }
        for auth in ["", "xpush", ":secret"] {
            assert!(Place::new(Settings { auth: Some(auth.into()), ..settings() }).is_err(), "{auth}");
        }
        assert!(Place::new(Settings { session_timeout: Duration::ZERO, ..settings() }).is_err());
    }

    #[test]
    fn a_refusal_does_not_tell_the_password() {
        let Err(error) = Place::new(Settings { auth: Some("secret".into()), ..settings() }) else {
            panic!("it is no user:password")
        };
        assert!(!error.to_string().contains("secret"));
    }
}
