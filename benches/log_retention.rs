//! What it costs that old publications go: a million messages are written, then the older half of them is trimmed
//! while more are appended. Prints what was measured; `src/log/embedded/retention.rs` quotes it.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use xpush::{
    log::{Embedded, From, Keep, KeepByNamespace, Log, Query},
    publication::{Draft, Publisher},
};
use xpush_protocol::{ChannelName, Json, MessageId, Payload};

const MESSAGES: u64 = 1_000_000;
const APPENDED_WHILE_TRIMMING: u64 = 200_000;
const CHANNELS: u64 = 100;
const CONCURRENT: u64 = 256;

fn channel(n: u64) -> ChannelName {
    format!("room:{}", n % CHANNELS).parse().expect("it is a channel's name")
}

fn draft() -> Draft {
    // 200 bytes that hardly compress.
    let data: String = (0..9).map(|_| MessageId::random().to_string()).collect();
    Draft {
        publisher: Publisher::backend("bench"),
        message_id: MessageId::random(),
        retriable: true,
        event: Default::default(),
        payload: Payload::Json(Json::from_value(&data).expect("it is JSON")),
        user: None,
        time: 0,
        reply_to: None,
        mentions: Vec::new(),
        expires_in: None,
    }
}

async fn append(log: &Arc<Embedded>, appends: u64) {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CONCURRENT)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..appends / CONCURRENT {
                    let pending = log.append(&channel(task + n), draft()).await.expect("it is in line");
                    pending.await.expect("it is appended");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no task panics");
    }
    println!("  {:.0} appends/s", appends as f64 / begun.elapsed().as_secs_f64());
}

/// The median and the slowest of a hundred.
async fn read_last(log: &Embedded) {
    let last = Query { from: From::Before(None), limit: 50, bytes: usize::MAX };
    let mut times = Vec::new();
    for n in 0..100 {
        let begun = Instant::now();
        let page = log.read(&channel(n), last).await.expect("a page");
        assert_eq!(page.publications.len(), 50);
        times.push(begun.elapsed());
    }
    times.sort();
    println!("  last 50: {:?}, the slowest {:?}", times[50], times[99]);
}

fn size(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

fn print_size(path: &Path) {
    println!("  {} MB on disk", size(path).expect("the size") / 1_000_000);
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    println!("writing {MESSAGES}, keeping all");
    {
        let log = Arc::new(Embedded::open(path, KeepByNamespace::new()).expect("a log"));
        runtime.block_on(append(&log, MESSAGES));
        runtime.block_on(read_last(&log));
    }
    print_size(path);

    let keep = Keep { count: Some(MESSAGES / CHANNELS / 2), age: None };
    let keep = [("room".parse().expect("it is a namespace"), keep)].into();
    let begun = Instant::now();
    let log = Arc::new(Embedded::open(path, keep).expect("a log"));
    println!(
        "opened in {:?}; appending {APPENDED_WHILE_TRIMMING} while the older half goes",
        begun.elapsed()
    );
    let begun = Instant::now();
    runtime.block_on(append(&log, APPENDED_WHILE_TRIMMING));
    runtime.block_on(read_last(&log));
    let is_trimmed = async |n| {
        let extent = log.extent(&channel(n)).await.expect("an extent");
        extent.top - extent.first < MESSAGES / CHANNELS / 2 + 100
    };
    runtime.block_on(async {
        for n in 0..CHANNELS {
            while !is_trimmed(n).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    println!("  trimmed after {:?}", begun.elapsed());
    runtime.block_on(read_last(&log));
    print_size(path);
    println!("appending on, with trimming keeping up");
    runtime.block_on(append(&log, MESSAGES));
    runtime.block_on(read_last(&log));
    drop(log);
    print_size(path);
}
