use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::*;

const WITHIN: Duration = Duration::from_secs(20);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// A server on a loopback address, which answers each connection with what `serve` does.
struct Server {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::at([127, 0, 0, 1].into(), serve).await
    }

    async fn at<F>(ip: IpAddr, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&accepted);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream));
            }
        });
        Self { address, accepted, _tasks: tasks }
    }

    /// Answers every request with these bytes.
    async fn answering(bytes: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            while let Some(_request) = read_request(&mut stream).await {
                stream.write_all(bytes).await.unwrap();
            }
        })
        .await
    }

    /// Reads a request, writes the beginning, and then the rest over and over.
    async fn without_end(beginning: &'static [u8], rest: &'static [u8]) -> Self {
        Self::start(move |mut stream| async move {
            read_request(&mut stream).await;
            stream.write_all(beginning).await.unwrap();
            while stream.write_all(rest).await.is_ok() {}
        })
        .await
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// Head and body of one request.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let head_end = text.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = head_end {
            let head = String::from_utf8_lossy(&text[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if text.len() >= end + 4 + length {
                return Some(String::from_utf8(text).unwrap());
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => text.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}

/// Gives these answers, one after the other, and counts.
struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    fn of(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(parse).collect()),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = lock(&self.answers).pop_front();
        let missing = || io::Error::other("there is no such name");
        Box::pin(std::future::ready(answer.ok_or_else(missing)))
    }
}

fn loopback() -> Reach {
    Reach::with_private(vec!["127.0.0.1/32".parse().unwrap()])
}

fn post(url: &str) -> Call {
    Call {
        target: Target::parse(url).unwrap(),
        headers: vec![("xpush-event", "test".into())],
        body: Some(Bytes::from_static(b"{\"a\":1}")),
        within: WITHIN,
        answer_limit: 1024,
    }
}

fn url(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address)
}

#[tokio::test]
async fn a_call_says_whom_and_what_it_means_and_gives_the_answer() {
    let (told, mut heard) = tokio::sync::mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            told.send(read_request(&mut stream).await.unwrap()).await.unwrap();
            stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 4\r\n\r\nfine").await.unwrap();
        }
    })
    .await;
    let names = Names::of(&[&["127.0.0.1"]]);
    let dialer = Dialer::with(loopback(), names);
    let port = server.address.port();
    let answer = dialer.call(post(&format!("http://hooks.test:{port}/in?x=1"))).await.unwrap();
    assert_eq!(answer, Answer { status: 202, body: Bytes::from_static(b"fine") });
    let request = heard.recv().await.unwrap();
    assert!(request.starts_with("POST /in?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: hooks.test:{port}\r\n")), "{request}");
    assert!(request.contains("xpush-event: test\r\n") && request.ends_with("\r\n\r\n{\"a\":1}"), "{request}");
}

#[tokio::test]
async fn a_private_address_is_refused_however_it_is_said() {
    let server = Server::answering(OK).await;
    let port = server.address.port();
    let names = || Names::of(&[&["127.0.0.1"]]);
    for host in
        ["127.0.0.1", "0x7f000001", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "inside.test"]
    {
        let dialer = Dialer::with(Reach::default(), names());
        let called = dialer.call(post(&format!("http://{host}:{port}/"))).await;
        assert!(matches!(called, Err(CallError::Private(_))), "{host}: {called:?}");
    }
    // The operator's own resolver says what `localhost` is; it is no more allowed for that.
    let called = Dialer::new(Reach::default()).call(post(&format!("http://localhost:{port}/"))).await;
    assert!(matches!(called, Err(CallError::Private(_))), "{called:?}");
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_after_the_check_leads_nobody_there() {
    let outside = Server::answering(OK).await;
    let inside = Server::at([127, 0, 0, 2].into(), |_| async {}).await;
    // Whoever resolved twice would get the second answer for the connection.
    let names = Names::of(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let dialer = Dialer::with(loopback(), names.clone());
    let url = format!("http://moving.test:{}/", outside.address.port());
    assert!(dialer.call(post(&url)).await.unwrap().is_success());
    assert_eq!(names.asked.load(Ordering::SeqCst), 1, "it connects to what it has checked");
    // A connection of its own checks again, and sees where the name leads now.
    let url = format!("http://moving.test:{}/", inside.address.port());
    assert_eq!(dialer.call(post(&url)).await, Err(CallError::Private([127, 0, 0, 2].into())));
    assert_eq!((outside.accepted(), inside.accepted()), (1, 0));
}

#[tokio::test]
async fn of_several_addresses_those_that_may_be_called_are() {
    let server = Server::answering(OK).await;
    let names = Names::of(&[&["10.0.0.1", "169.254.169.254", "::1", "127.0.0.1"]]);
    let dialer = Dialer::with(loopback(), names);
    let url = format!("http://mixed.test:{}/", server.address.port());
    assert!(dialer.call(post(&url)).await.unwrap().is_success());
}

#[tokio::test]
async fn a_public_address_is_not_called_without_tls() {
    let dialer = Dialer::with(loopback(), Names::of(&[&["8.8.8.8"]]));
    assert_eq!(dialer.call(post("http://public.test/")).await, Err(CallError::Unencrypted));
}

#[tokio::test]
async fn a_name_without_addresses_is_not_called() {
    let dialer = Dialer::with(loopback(), Names::of(&[&[]]));
    for _ in 0..2 {
        let called = dialer.call(post("https://nowhere.test/")).await;
        assert!(matches!(called, Err(CallError::Unresolved(_))), "{called:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_a_loop_of_them_no_loop() {
    let server =
        Server::answering(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /\r\ncontent-length: 0\r\n\r\n")
            .await;
    let dialer = Dialer::new(loopback());
    let answer = dialer.call(post(&url(&server, "/"))).await.unwrap();
    assert_eq!((answer.status, answer.is_success()), (307, false));
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let dialer = Dialer::new(loopback());
    let chunk: &[u8] = b"8\r\naaaaaaaa\r\n";
    let head: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = Server::without_end(head, chunk).await;
    assert_eq!(dialer.call(post(&url(&body, "/"))).await, Err(CallError::TooLarge(1024)));
    let until_close = Server::without_end(b"HTTP/1.1 200 OK\r\n\r\n", b"aaaaaaaa").await;
    assert_eq!(dialer.call(post(&url(&until_close, "/"))).await, Err(CallError::TooLarge(1024)));
    let headers = Server::without_end(b"HTTP/1.1 200 OK\r\n", b"x-more: aaaaaaaaaaaaaaaa\r\n").await;
    let called = dialer.call(post(&url(&headers, "/"))).await;
    assert!(matches!(called, Err(CallError::Broken(_))), "{called:?}");
    let one_header = Server::without_end(b"HTTP/1.1 200 OK\r\nx-more: ", b"aaaaaaaaaaaaaaaa").await;
    let called = dialer.call(post(&url(&one_header, "/"))).await;
    assert!(matches!(called, Err(CallError::Broken(_))), "{called:?}");
    let interim = Server::without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n").await;
    let within = Duration::from_millis(300);
    let called = dialer.call(Call { within, ..post(&url(&interim, "/")) }).await;
    assert!(matches!(called, Err(CallError::TimedOut(_) | CallError::Broken(_))), "{called:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let within = Duration::from_millis(200);
    let silent = Server::start(|stream| async move {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let half = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let dialer = Dialer::new(loopback());
    for server in [&silent, &half] {
        let called = dialer.call(Call { within, ..post(&url(server, "/")) }).await;
        assert_eq!(called, Err(CallError::TimedOut(within)));
    }
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    let dialer = Dialer::new(loopback());
    let other = Server::answering(b"SSH-2.0-OpenSSH_9.9\r\n").await;
    let called = dialer.call(post(&url(&other, "/"))).await;
    assert!(matches!(called, Err(CallError::Broken(_))), "{called:?}");
    let nobody = format!("http://127.0.0.1:{}/", {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    });
    let called = dialer.call(post(&nobody)).await;
    assert!(matches!(called, Err(CallError::Unreachable(_))), "{called:?}");
}

#[tokio::test]
async fn a_connection_serves_calls_until_its_server_closes_it() {
    let server = Server::answering(OK).await;
    let dialer = Dialer::new(loopback());
    for _ in 0..3 {
        assert!(dialer.call(post(&url(&server, "/"))).await.unwrap().is_success());
    }
    assert_eq!(server.accepted(), 1);
    // It says nothing of closing, and closes: the next call finds out, and makes another.
    let fickle = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(OK).await.unwrap();
    })
    .await;
    for _ in 0..3 {
        assert!(dialer.call(post(&url(&fickle, "/"))).await.unwrap().is_success());
    }
    assert_eq!(fickle.accepted(), 3);
}

#[tokio::test]
async fn one_target_gets_so_many_connections_and_no_more() {
    let server = Server::start(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let dialer = Dialer::new(loopback());
    let call = || dialer.call(Call { within: Duration::from_secs(1), ..post(&url(&server, "/")) });
    let answers = futures_util::future::join_all((0..CONNECTIONS_PER_TARGET * 2).map(|_| call())).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(CallError::TimedOut(_)))));
    assert_eq!(server.accepted(), CONNECTIONS_PER_TARGET);
}

#[tokio::test]
async fn tls_is_by_name_whatever_the_address() {
    let certified = rcgen::generate_simple_self_signed(vec!["hooks.test".into()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::start(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not believe us goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let name = stream.get_ref().1.server_name().unwrap_or("").to_owned();
            read_request(&mut stream).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let names = Names::of(&[&["127.0.0.1"], &["127.0.0.1"]]);
    let dialer = Dialer::with(loopback(), names).trusting(roots);
    let port = server.address.port();
    let answer = dialer.call(post(&format!("https://hooks.test:{port}/"))).await.unwrap();
    assert_eq!(answer.body, "hooks.test");
    let called = dialer.call(post(&format!("https://other.test:{port}/"))).await;
    assert!(matches!(called, Err(CallError::Tls(_))), "{called:?}");
}
