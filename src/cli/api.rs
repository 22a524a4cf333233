//! How a command calls a server's HTTP API.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde::de::DeserializeOwned;
use xpush_transports::tls::Trust;

/// Lists of nodes are the longest that is asked for.
const ANSWER_LIMIT: usize = 4 << 20;

/// A server, and the leave to ask it for what only operators may.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiArgs {
    /// The server's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "XPUSH_SERVER")]
    pub(crate) server: String,
    /// An API key without restrictions; without one, anonymous (on the server's own machine, in development)
    #[arg(long, env = "XPUSH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

impl ApiArgs {
    pub(crate) async fn get<T: DeserializeOwned>(&self, base: &str, path: &str) -> anyhow::Result<T> {
        let body = self.call(Method::GET, base, path).await?;
        serde_json::from_slice(&body).with_context(|| format!("{base}{path} answers with something else"))
    }

    pub(crate) async fn post(&self, base: &str, path: &str) -> anyhow::Result<()> {
        self.call(Method::POST, base, path).await.map(drop)
    }

    async fn call(&self, method: Method, base: &str, path: &str) -> anyhow::Result<Bytes> {
        let base = base.trim_end_matches('/');
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if let Some(key) = &self.api_key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Full::<Bytes>::default())?;
        let trust = if base.starts_with("https:") { Trust::System } else { Trust::CertificateHashes(vec![]) };
        let mut tls = trust.client_config(b"http/1.1")?;
        // The connector sets the protocols itself.
        tls.alpn_protocols.clear();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let client = legacy::Client::builder(TokioExecutor::new()).build(connector);
        let response = client
            .request(request)
            .await
            .with_context(|| format!("no XPUSH server answers at {base}; is it running?"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body =
            body.map_err(|error| anyhow::anyhow!("the answer of {base} breaks off: {error}"))?.to_bytes();
        if !status.is_success() {
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let why = problem["detail"].as_str().unwrap_or("no reason given").to_owned();
            bail!("{base}{path} answers {status}: {why}");
        }
        Ok(body)
    }
}
