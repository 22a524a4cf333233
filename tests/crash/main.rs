//! A process that publishes and deletes is killed, at a thousand random points. What it acknowledged is there, and what it
//! said is deleted is gone.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used)]

mod checker;

use std::{
    collections::{HashMap, HashSet},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use checker::{Checker, Message};
use xpush::{
    log::{Embedded, From, KeepByNamespace, Log, Query},
    publication::{DELETED, Draft, Publisher},
};
use xpush_protocol::{ChannelName, Json, Payload};

const KILLS: usize = 1000;
/// A store lives through so many, so that later crashes find what earlier ones left.
const KILLS_OF_ONE_STORE: usize = 25;
const PUBLISHERS: usize = 24;
const CHANNELS: u64 = 40;
/// Of so many messages one is deleted once it is acknowledged.
const DELETED_OF: u64 = 5;

/// Tells the child which store it writes to, and with which number each publisher goes on.
const STORE: &str = "XPUSH_CRASH_STORE";
const NUMBERS: &str = "XPUSH_CRASH_NUMBERS";

fn channel_of(message: Message) -> ChannelName {
    let n = (message.publisher as u64 * 7 + message.number) % CHANNELS;
    format!("room:{n}").parse().unwrap()
}

fn draft(message: Message) -> Draft {
    // Of different sizes, so that a write is torn at different places.
    let data = "x".repeat((message.number * 37 % 1500) as usize);
    Draft {
        publisher: Publisher::backend(&message.publisher.to_string()),
        message_id: message.id().parse().unwrap(),
        retriable: true,
        event: "message".parse().unwrap(),
        payload: Payload::Json(Json::from_value(&data).unwrap()),
        user: None,
        time: 0,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

#[test]
#[ignore = "the process that is killed"]
fn child() {
    let Ok(path) = std::env::var(STORE) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let numbers = std::env::var(NUMBERS).unwrap();
    let log = Arc::new(Embedded::open(Path::new(&path), KeepByNamespace::new()).unwrap());
    runtime.block_on(async {
        let mut publishers = Vec::new();
        for (publisher, number) in numbers.split(',').enumerate() {
            let (log, first) = (log.clone(), number.parse::<u64>().unwrap());
            publishers.push(tokio::spawn(async move {
                for number in first.. {
                    let message = Message { publisher, number };
                    let channel = channel_of(message);
                    let appended = log.append(&channel, draft(message)).await.unwrap().await.unwrap();
                    let line = format!("ack {channel} {} {}\n", appended.cursor().offset, message.id());
                    io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    if number % DELETED_OF == 0 {
                        let offset = appended.cursor().offset;
                        assert!(log.redact(&channel, offset).await.unwrap());
                        // The word at its end tells that the line is whole.
                        let line = format!("gone {channel} {offset} whole\n");
                        io::stdout().lock().write_all(line.as_bytes()).unwrap();
                    }
                }
            }));
        }
        for publisher in publishers {
            publisher.await.unwrap();
        }
    });
}

/// When the child is killed.
enum At {
    /// So long after its start, so perhaps while it opens the store.
    Start(Duration),
    /// So long after so many acknowledgements.
    Acks(usize, Duration),
}

/// Channels and offsets of what is deleted.
type Gone = HashSet<(String, u64)>;

fn run_and_kill(store: &Path, checker: &mut Checker, gone: &mut Gone, at: &At) {
    let numbers: Vec<_> =
        (0..PUBLISHERS).map(|publisher| (checker.last(publisher) + 1).to_string()).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env(STORE, store)
        .env(NUMBERS, numbers.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let (mut acks, mut rest) = (Vec::new(), Vec::new());
    // The pauses wait for nothing: they are what makes the points random.
    match at {
        At::Start(pause) => thread::sleep(*pause),
        At::Acks(count, pause) => {
            while acks.len() < *count {
                let line = lines.next().expect("the child publishes until it is killed");
                acks.extend(line.strip_prefix("ack ").map(ToOwned::to_owned));
                rest.push(line);
            }
            thread::sleep(*pause);
        }
    }
    // On Unix this is SIGKILL.
    child.kill().unwrap();
    for line in lines {
        acks.extend(line.strip_prefix("ack ").map(ToOwned::to_owned));
        rest.push(line);
    }
    child.wait().unwrap();
    gone.extend(rest.iter().filter_map(|line| {
        let (channel, offset) = line.strip_prefix("gone ")?.strip_suffix(" whole")?.split_once(' ')?;
        Some((channel.to_owned(), offset.parse().ok()?))
    }));
    for ack in acks {
        // The last line may be torn; then its message counts as not acknowledged, and is sent again.
        let mut words = ack.split(' ');
        let (Some(channel), Some(offset), Some(id)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some(message) =
            Message::parse(id).filter(|message| message.number == checker.last(message.publisher) + 1)
        else {
            continue;
        };
        checker.acknowledge(channel, offset.parse().unwrap(), message).unwrap();
    }
}

async fn check(store: &Path, checker: &Checker, gone: &Gone) {
    let log = Embedded::open(store, KeepByNamespace::new()).unwrap();
    for channel in checker.channels() {
        let query = Query { from: From::After(0), limit: usize::MAX, bytes: usize::MAX };
        let page = log.read(&channel.parse().unwrap(), query).await.unwrap();
        let message = |id: &str| Message::parse(id).unwrap();
        let read: Vec<_> = page
            .publications
            .iter()
            .map(|publication| (publication.offset, message(publication.message_id.as_str())))
            .collect();
        checker.check(channel, &read).unwrap();
        for publication in &page.publications {
            let is_gone = publication.event.as_str() == DELETED;
            assert!(is_gone || !gone.contains(&(channel.to_owned(), publication.offset)), "{publication:?}");
        }
    }
}

/// A small generator of random numbers (splitmix64), so that a run can be told by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Counts what the log says when it opens a store.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<HashMap<&'static str, usize>>>);

impl Write for Said {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.windows(10).any(|words| words == b"is cut off") {
            *self.0.lock().unwrap().entry("cut off").or_default() += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_acknowledged_message_survives_a_thousand_kills_in_order_once() {
    let seed = Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id());
    println!("seed {seed}");
    let said = Said::default();
    let writer = said.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    // Two at a time: a kill costs mostly waiting for the disk.
    let workers = [0, 1].map(|worker| {
        thread::spawn(move || {
            let mut random = Random(seed + worker);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (mut acknowledged, mut deleted) = (0, 0);
            for _ in 0..KILLS / KILLS_OF_ONE_STORE / 2 {
                let directory = tempfile::tempdir().unwrap();
                let (mut checker, mut gone) = (Checker::default(), Gone::default());
                for _ in 0..KILLS_OF_ONE_STORE {
                    let at = if random.below(5) == 0 {
                        At::Start(Duration::from_micros(random.below(100_000)))
                    } else {
                        At::Acks(1 + random.below(200) as usize, Duration::from_micros(random.below(5000)))
                    };
                    run_and_kill(directory.path(), &mut checker, &mut gone, &at);
                    runtime.block_on(check(directory.path(), &checker, &gone));
                }
                acknowledged += checker.count();
                deleted += gone.len();
            }
            (acknowledged, deleted)
        })
    });
    let (acknowledged, deleted) = workers
        .into_iter()
        .map(|worker| worker.join().unwrap())
        .fold((0, 0), |sum, of_one| (sum.0 + of_one.0, sum.1 + of_one.1));
    println!("{acknowledged} messages were acknowledged, {deleted} deleted; {:?}", said.0.lock().unwrap());
    assert!(acknowledged > KILLS, "it was killed while it published");
    assert!(deleted > KILLS / 10, "and while it deleted");
}
