//! A load balancer that remembers nobody: each request goes to the next node, whoever sends it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Balancer {
    address: SocketAddr,
    /// How many requests went where.
    sent: Arc<Vec<AtomicUsize>>,
    _serving: AbortOnDropHandle<()>,
}

struct Way {
    nodes: Vec<SocketAddr>,
    sent: Arc<Vec<AtomicUsize>>,
    next: AtomicUsize,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Balancer {
    pub(crate) async fn before(nodes: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent: Arc<Vec<_>> = Arc::new(nodes.iter().map(|_| AtomicUsize::new(0)).collect());
        let http = Client::builder(TokioExecutor::new()).build_http();
        let way = Arc::new(Way { nodes, sent: Arc::clone(&sent), next: AtomicUsize::new(0), http });
        let serving = AbortOnDropHandle::new(tokio::spawn(serve(listener, way)));
        Self { address, sent, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn sent(&self) -> Vec<usize> {
        self.sent.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

async fn serve(listener: TcpListener, way: Arc<Way>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let way = Arc::clone(&way);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let way = Arc::clone(&way);
                        async move { Ok::<_, Infallible>(way.forward(request).await) }
                    });
                    // A client that goes away is its own matter.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Way {
    async fn forward(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let node = self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len();
        self.sent[node].fetch_add(1, Ordering::Relaxed);
        match self.at(node, request).await {
            Some(response) => response,
            // The client sends it again, and it goes to the next.
            None => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    async fn at(&self, node: usize, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("http://{}{path}", self.nodes[node]).parse::<Uri>().ok()?;
        let body = body.collect().await.ok()?.to_bytes();
        let response = self.http.request(Request::from_parts(parts, Full::new(body))).await.ok()?;
        let (parts, body) = response.into_parts();
        Some(Response::from_parts(parts, Full::new(body.collect().await.ok()?.to_bytes())))
    }
}
