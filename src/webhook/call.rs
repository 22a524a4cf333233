//! One HTTP request to a server of somebody else's, as the core sees it.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use url::{Host, Url};

/// Bytes of a URL.
pub const MAX_URL: usize = 2048;

/// Whom to call: `http` or `https`, a host, and nothing that is a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target(Url);

/// Why a text is no target. For who configures it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    #[error("the URL has more than {MAX_URL} bytes")]
    TooLong,
    #[error("the URL can't be read: {0}")]
    Unreadable(url::ParseError),
    #[error("the URL has to begin with https:// (or http://, where the operator allows the address)")]
    Scheme,
    #[error("the URL has a user or a password; sign requests with `secret` instead")]
    Credentials,
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > MAX_URL {
            return Err(TargetError::TooLong);
        }
        let mut url = Url::parse(text).map_err(TargetError::Unreadable)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        url.set_fragment(None);
        Ok(Self(url))
    }

    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// A name, or an address however it was written: `0x7f.1` is `127.0.0.1`.
    #[must_use]
    pub fn host(&self) -> Host<&str> {
        // Both schemes have one, or they are not parsed.
        self.0.host().unwrap_or(Host::Domain(""))
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// As the `Host` header has it.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.0[url::Position::BeforeHost..url::Position::AfterPort]
    }

    /// Scheme, host and port: what connections belong to.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.0[..url::Position::BeforePath]
    }

    #[must_use]
    pub fn path_and_query(&self) -> &str {
        &self.0[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    pub target: Target,
    pub headers: Vec<(&'static str, String)>,
    /// JSON to post. `None`: the target is read (`GET`).
    pub body: Option<Bytes>,
    /// From the look-up of the name to the last byte of the answer.
    pub within: Duration,
    /// Bytes of the answer's body.
    pub answer_limit: usize,
}

/// What came back. A redirect is an answer like any other: nobody follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("the name can't be resolved: {0}")]
    Unresolved(String),
    #[error("{0} is not a public address, and the operator does not allow it (`webhooks.allow_private`)")]
    Private(IpAddr),
    #[error("a public address is called by https:// only")]
    Unencrypted,
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    #[error("TLS failed: {0}")]
    Tls(String),
    #[error("it broke off: {0}")]
    Broken(String),
    #[error("it did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("its answer has more than {0} bytes")]
    TooLarge(usize),
    /// Nothing was set up to call anybody.
    #[error("this node calls nobody")]
    Nobody,
}

/// Calls somebody, within bounds.
pub trait Dial: Send + Sync + 'static {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>>;
}

/// Calls nobody: of a node without the `server` feature, and until one is set up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Dial for Nobody {
    fn call(&self, _: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(std::future::ready(Err(CallError::Nobody)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_a_browser_reads_it() {
        let target = Target::parse("https://Hooks.Example:8443/a/../b?x=1#frag").unwrap();
        assert_eq!(target.origin(), "https://hooks.example:8443");
        assert_eq!((target.authority(), target.path_and_query()), ("hooks.example:8443", "/b?x=1"));
        assert_eq!((target.port(), target.is_encrypted()), (8443, true));
        for loopback in ["http://0x7f.1/", "http://2130706433/", "http://0177.0.0.1/", "http://127.1"] {
            let target = Target::parse(loopback).unwrap();
            assert_eq!(target.host(), Host::<&str>::Ipv4([127, 0, 0, 1].into()), "{loopback}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for (text, wrong) in [
            ("ftp://a.example/", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Scheme),
            ("https://ann:secret@a.example/", TargetError::Credentials),
            ("https://ann@a.example/", TargetError::Credentials),
        ] {
            assert_eq!(Target::parse(text), Err(wrong), "{text}");
        }
        for unreadable in ["", "a.example/hook", "https://", "https://a b/", "http://[::1"] {
            assert!(matches!(Target::parse(unreadable), Err(TargetError::Unreadable(_))), "{unreadable}");
        }
        assert_eq!(Target::parse(&format!("https://a/{}", "a".repeat(MAX_URL))), Err(TargetError::TooLong));
    }
}
