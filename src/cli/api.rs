//! How a command calls a server's HTTP API.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy, rt::TokioExecutor};
use serde::de::DeserializeOwned;
use serde_json::Value;
use xpush_transports::tls::Trust;

/// Lists of nodes are the longest that is asked for.
const ANSWER_LIMIT: usize = 4 << 20;

/// A server, and the leave to ask it for what only operators may.
#[derive(Debug, Clone, Args)]
pub(crate) struct ApiArgs {
    /// The server's HTTP address
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        env = "XPUSH_SERVER",
        global = true
    )]
    pub(crate) server: String,
    /// An API key without restrictions; without one, anonymous (on the server's own machine, in development)
    #[arg(long, env = "XPUSH_API_KEY", hide_env_values = true, global = true)]
    api_key: Option<String>,
    /// Act in this app instead of the default one
    #[arg(long, value_name = "APP", env = "XPUSH_APP", global = true)]
    app: Option<String>,
}

/// A name as a part of a path.
pub(crate) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:@".contains(&byte);
    let written = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(written).collect()
}

impl ApiArgs {
    pub(crate) async fn get<T: DeserializeOwned>(&self, base: &str, path: &str) -> anyhow::Result<T> {
        let body = self.call(Method::GET, base, path, None).await?;
        serde_json::from_slice(&body).with_context(|| format!("{base}{path} answers with something else"))
    }

    pub(crate) async fn post(&self, base: &str, path: &str) -> anyhow::Result<()> {
        self.call(Method::POST, base, path, None).await.map(drop)
    }

    /// Does something; `null` where the answer has nothing to say.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let answer = self.call(method, &self.server, path, body).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).with_context(|| format!("{path} answers with something else"))
    }

    /// All items of a list, page by page.
    pub(crate) async fn items(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut page = path.to_owned();
        loop {
            let mut answer: Value = self.get(&self.server, &page).await?;
            items.extend(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            let Some(next) = answer["next"].as_str() else { return Ok(items) };
            let joint = if path.contains('?') { '&' } else { '?' };
            page = format!("{path}{joint}cursor={next}");
        }
    }

    async fn call(
        &self,
        method: Method,
        base: &str,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Bytes> {
        let base = base.trim_end_matches('/');
        let mut request = Request::builder().method(method).uri(format!("{base}{path}"));
        if let Some(key) = &self.api_key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        if let Some(app) = &self.app {
            request = request.header("x-xpush-app", app);
        }
        let request = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                request.body(Full::from(body.to_string()))?
            }
            None => request.body(Full::<Bytes>::default())?,
        };
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
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            let why = problem["detail"].as_str().unwrap_or("no reason given").to_owned();
            bail!("{base}{path} answers {status}: {why}");
        }
        Ok(body)
    }
}
