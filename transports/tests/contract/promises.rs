//! The promises, as the traits in `transports/src/lib.rs` write them down.
//!
//! Frames are JSON, since one wire carries nothing else. Every connection begins with a frame each way, as the
//! protocol has it (`connect`, `connected`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Semaphore, task::JoinHandle, time::timeout};
use xpush_protocol::CloseCode;
use xpush_transports::{
    Admission, Closed, Connection, Farewell, Lane, Outgoing, Peer, Reader, Settings, Transport, Writer,
};

use crate::Wire;

/// A deadline that a test waits for. Long enough that a busy machine does not run into it by accident.
const SHORT: Duration = Duration::from_millis(700);

/// A writer that did not get on for this long waits for its reader.
const STALL: Duration = Duration::from_millis(400);

struct End<C: Connection> {
    peer: Peer,
    reader: C::Reader,
    writer: C::Writer,
}

impl<C: Connection> End<C> {
    fn of(connection: C) -> Self {
        let (peer, reader, writer) = connection.split();
        Self { peer, reader, writer }
    }

    async fn write(&mut self, frame: Bytes) -> Result<(), Closed> {
        self.writer.write(&mut vec![control(frame)]).await
    }

    async fn read(&mut self) -> Bytes {
        self.reader.read().await.expect("a frame")
    }
}

type Server<W> = End<<<W as Wire>::Server as Transport>::Connection>;
type Client<W> = End<<W as Wire>::Client>;

async fn start<W: Wire>(settings: Settings) -> W {
    W::start(settings, Admission::new(1000, 1000)).await
}

/// A connection whose first frames were exchanged.
async fn connect<W: Wire>(wire: &mut W) -> (Client<W>, Server<W>) {
    let mut client = End::of(wire.dial().await.expect("a connection"));
    let peer_port = client.peer.address.port();
    client.write(Bytes::from_static(b"\"hello\"")).await.expect("the first frame goes out");
    let mut server = End::of(wire.server().accept().await.expect("a connection"));
    assert!(server.peer.address.ip().is_loopback() && client.peer.address.ip().is_loopback());
    assert_eq!(server.peer.kind, client.peer.kind);
    assert!(peer_port == 0 || peer_port != server.peer.address.port());
    assert_eq!(server.read().await, "\"hello\"");
    server.write(Bytes::from_static(b"\"welcome\"")).await.expect("the answer goes out");
    assert_eq!(client.read().await, "\"welcome\"");
    (client, server)
}

fn control(bytes: Bytes) -> Outgoing {
    Outgoing { bytes, lane: Lane::Control }
}

/// A JSON frame of this many bytes that tells its number.
fn frame(number: usize, size: usize) -> Bytes {
    let bare = format!("[{number},\"\"]").len();
    let frame = match size {
        1 => (number % 10).to_string(),
        size if size < bare => format!("\"{}\"", "y".repeat(size - 2)),
        size => format!("[{number},\"{}\"]", "x".repeat(size - bare)),
    };
    assert_eq!(frame.len(), size);
    frame.into()
}

/// Sizes that differ from frame to frame and come near the boundaries of the wires' length fields.
fn mixed(number: usize) -> usize {
    [1, 16, 124, 125, 126, 127, 900, 4096, 1199, 16_384, 60][number % 11]
}

/// Writes the frames of these numbers, some at a time.
async fn pour<T: Writer>(mut writer: T, numbers: std::ops::Range<usize>, size: fn(usize) -> usize) -> T {
    let mut batch = Vec::new();
    for number in numbers {
        batch.push(control(frame(number, size(number))));
        if batch.len() == 1 + number % 7 {
            writer.write(&mut batch).await.expect("frames go out");
            assert!(batch.is_empty());
        }
    }
    writer.write(&mut batch).await.expect("frames go out");
    writer
}

/// Reads those frames.
async fn drain<T: Reader>(mut reader: T, numbers: std::ops::Range<usize>, size: fn(usize) -> usize) -> T {
    for number in numbers {
        let read = reader.read().await.expect("a frame");
        assert!(read == frame(number, size(number)), "frame {number} is another one: {} bytes", read.len());
    }
    reader
}

pub(crate) async fn frames_arrive_whole_and_in_order_both_ways<W: Wire>() {
    const FRAMES: usize = 3000;
    let mut wire: W = start(Settings::default()).await;
    let (client, server) = connect(&mut wire).await;
    let ends = (
        tokio::spawn(pour(server.writer, 0..FRAMES, mixed)),
        tokio::spawn(pour(client.writer, 0..FRAMES, mixed)),
        tokio::spawn(drain(server.reader, 0..FRAMES, mixed)),
    );
    drain(client.reader, 0..FRAMES, mixed).await;
    let _ = (ends.0.await.unwrap(), ends.1.await.unwrap(), ends.2.await.unwrap());
}

pub(crate) async fn frames_of_every_size_up_to_the_limit_arrive<W: Wire>() {
    const SIZES: [usize; 12] = [1, 2, 125, 126, 127, 4095, 4096, 4097, 16_384, 65_534, 65_535, LIMIT];
    const LIMIT: usize = 64 * 1024;
    let mut wire: W = start(Settings { frame_limit: LIMIT, ..Settings::default() }).await;
    let (mut client, mut server) = connect(&mut wire).await;
    for (number, size) in SIZES.into_iter().enumerate() {
        client.write(frame(number, size)).await.unwrap();
        assert_eq!(server.read().await, frame(number, size));
        // At once: a write may wait until somebody reads.
        let (written, read) = tokio::join!(server.write(frame(number, size)), client.read());
        written.unwrap();
        assert_eq!(read, frame(number, size));
    }
}

pub(crate) async fn a_batch_arrives_in_order_within_each_lane<W: Wire>() {
    const FRAMES: usize = 600;
    const LANES: [Lane; 5] =
        [Lane::Live(1), Lane::Control, Lane::Live(2), Lane::Backfill, Lane::Live(70_000)];
    let mut wire: W = start(Settings::default()).await;
    let (mut client, mut server) = connect(&mut wire).await;
    let writes = tokio::spawn(async move {
        for batch in 0..FRAMES / 100 {
            let mut frames: Vec<_> = (batch * 100..(batch + 1) * 100)
                .map(|number| Outgoing { bytes: frame(number, 200), lane: LANES[number % LANES.len()] })
                .collect();
            if server.peer.wants_checkpoints {
                frames.push(Outgoing { bytes: Bytes::from_static(b"a_b-c"), lane: Lane::Checkpoint });
            }
            server.writer.write(&mut frames).await.unwrap();
            assert!(frames.is_empty());
        }
        server
    });
    let mut next: [usize; LANES.len()] = std::array::from_fn(|lane| lane);
    for _ in 0..FRAMES {
        let read = client.read().await;
        let number = std::str::from_utf8(&read).unwrap()[1..].split(',').next().unwrap().parse().unwrap();
        assert_eq!(read, frame(number, 200));
        let expected = &mut next[number % LANES.len()];
        assert_eq!(number, *expected, "in lane {:?}", LANES[number % LANES.len()]);
        *expected += LANES.len();
    }
    let _ = writes.await.unwrap();
}

pub(crate) async fn a_frame_over_the_limit_ends_the_connection<W: Wire>() {
    const LIMIT: usize = 4096;
    for size in [LIMIT + 1, LIMIT * 3] {
        let mut wire: W = start(Settings { frame_limit: LIMIT, ..Settings::default() }).await;
        let (mut client, mut server) = connect(&mut wire).await;
        // Whether the client's write fails depends on how much of the frame was taken before the close.
        let writes = tokio::spawn(async move {
            let _ = client.write(frame(7, size)).await;
            client
        });
        let closed = server.reader.read().await.expect_err("the frame is too large");
        assert!(matches!(closed, Closed::FrameTooLarge { limit: LIMIT, .. }), "{closed}");
        let closing = tokio::spawn(server.writer.close(closed.farewell()));
        let mut client = writes.await.unwrap();
        let end = client.reader.read().await;
        assert!(matches!(end, Err(Closed::ByPeer { code: CloseCode::FrameTooLarge, .. })), "{end:?}");
        drop(client);
        closing.await.unwrap();
    }
}

pub(crate) async fn the_server_tells_the_client_why_it_closes<W: Wire>() {
    for code in [CloseCode::Draining, CloseCode::Normal, CloseCode::Unauthenticated, CloseCode::Other(4999)] {
        let mut wire: W = start(Settings::default()).await;
        let (mut client, mut server) = connect(&mut wire).await;
        let reason = "ü".repeat(100);
        let farewell = Farewell::new(code, &reason);
        let closing = tokio::spawn(async move {
            server.write(frame(1, 100)).await.unwrap();
            server.writer.close(farewell).await;
        });
        assert_eq!(client.read().await, frame(1, 100));
        let Err(Closed::ByPeer { code: told, reason: why }) = client.reader.read().await else {
            panic!("the client is told why");
        };
        assert_eq!(told, code);
        assert!(!why.is_empty() && reason.starts_with(&why), "{why}");
        drop(client);
        closing.await.unwrap();
    }
}

pub(crate) async fn the_client_tells_the_server_why_it_closes<W: Wire>() {
    if !W::SAYS_GOODBYE {
        return;
    }
    let mut wire: W = start(Settings::default()).await;
    let (mut client, mut server) = connect(&mut wire).await;
    client.write(frame(1, 100)).await.unwrap();
    let closing = tokio::spawn(client.writer.close(Farewell::new(CloseCode::Normal, "bye")));
    assert_eq!(server.read().await, frame(1, 100));
    let end = server.reader.read().await;
    assert_eq!(end, Err(Closed::ByPeer { code: CloseCode::Normal, reason: "bye".into() }));
    drop(server);
    closing.await.unwrap();
}

pub(crate) async fn a_client_that_sends_no_first_frame_is_closed<W: Wire>() {
    if !W::OPENS_WITHOUT_A_FRAME {
        return;
    }
    let mut wire: W = start(Settings { handshake_deadline: SHORT, ..Settings::default() }).await;
    let client = End::<W::Client>::of(wire.dial().await.expect("a connection"));
    let mut server = Server::<W>::of(wire.server().accept().await.expect("a connection"));
    assert_eq!(server.reader.read().await, Err(Closed::HandshakeTimeout));
    drop(client);
}

pub(crate) async fn an_idle_client_is_closed<W: Wire>() {
    let mut wire: W = start(Settings { idle_deadline: SHORT, ..Settings::default() }).await;
    let (client, mut server) = connect(&mut wire).await;
    assert_eq!(server.reader.read().await, Err(Closed::Idle));
    drop(client);
}

pub(crate) async fn a_client_that_speaks_is_not_idle<W: Wire>() {
    let settings = Settings { idle_deadline: SHORT, handshake_deadline: SHORT, ..Settings::default() };
    let mut wire: W = start(settings).await;
    let (client, mut server) = connect(&mut wire).await;
    let speaks = tokio::spawn(async move {
        let mut client = client;
        let mut ticks = tokio::time::interval(SHORT / 4);
        for number in 0..12 {
            ticks.tick().await;
            client.write(frame(number, 60)).await.expect("the connection lives");
        }
        client
    });
    for number in 0..12 {
        assert_eq!(server.read().await, frame(number, 60));
    }
    let _ = speaks.await.unwrap();
}

pub(crate) async fn connections_beyond_the_limit_of_an_address_are_refused<W: Wire>() {
    let admission = Admission::new(1000, 2);
    let mut wire = W::start(Settings::default(), admission.clone()).await;
    let first = connect(&mut wire).await;
    let second = connect(&mut wire).await;
    assert_eq!(admission.count(), 2);
    assert!(is_refused(&wire).await);
    drop(first);
    // The place is free once the server's halves are gone; a wire may need a moment for it.
    while admission.count() == 2 {
        tokio::task::yield_now().await;
    }
    let third = connect(&mut wire).await;
    drop((second, third));
}

/// Where the wire is up before the refusal, it ends before it brings anything.
async fn is_refused<W: Wire>(wire: &W) -> bool {
    let Ok(client) = wire.dial().await else { return true };
    let mut client = End::of(client);
    client.write(Bytes::from_static(b"\"hello\"")).await.is_err() || client.reader.read().await.is_err()
}

pub(crate) async fn a_client_that_stops_reading_makes_the_server_wait<W: Wire>() {
    let mut wire: W = start(Settings::default()).await;
    let (client, server) = connect(&mut wire).await;
    waits_and_resumes(server.writer, client.reader).await;
    drop((client.writer, server.reader));
}

pub(crate) async fn a_server_that_stops_reading_makes_the_client_wait<W: Wire>() {
    let mut wire: W = start(Settings::default()).await;
    let (client, server) = connect(&mut wire).await;
    waits_and_resumes(client.writer, server.reader).await;
    drop((client.reader, server.writer));
}

/// More than the buffers of any loopback socket hold.
const FLOOD: usize = 32 * 1024 * 1024;
const FLOOD_FRAME: usize = 16 * 1024;

async fn waits_and_resumes<T: Writer, R: Reader>(writer: T, reader: R) {
    const FRAMES: usize = FLOOD / FLOOD_FRAME;
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writes: JoinHandle<T> = tokio::spawn(async move {
        let mut writer = writer;
        for number in 0..FRAMES {
            writer.write(&mut vec![control(frame(number, FLOOD_FRAME))]).await.expect("a frame goes out");
            count.store(number + 1, Ordering::Relaxed);
        }
        writer
    });
    let mut seen = usize::MAX;
    while seen != written.load(Ordering::Relaxed) {
        seen = written.load(Ordering::Relaxed);
        tokio::time::sleep(STALL).await;
    }
    assert!(seen < FRAMES, "the writer did not wait: all {FRAMES} frames are somewhere in memory");
    drain(reader, 0..FRAMES, |_| FLOOD_FRAME).await;
    let _ = writes.await.unwrap();
}

/// On a wire that can be written to by others than its writer.
pub(crate) async fn what_the_wire_takes_at_once_and_what_its_writer_writes_arrives_in_order<W: Wire>() {
    const FRAMES: usize = FLOOD / FLOOD_FRAME;
    // Of each size, and often enough one that does not fit with others into one write.
    let size = |number: usize| if number.is_multiple_of(3) { FLOOD_FRAME } else { mixed(number) };
    let mut wire: W = start(Settings::default()).await;
    let (client, server) = connect(&mut wire).await;
    let beside = server.writer.beside().and_then(|beside| beside.upgrade());
    let beside = beside.expect("this wire can be written to by others");
    let (mut writer, mut number, mut left) = (server.writer, 0, Vec::new());
    let batch = |number: &mut usize, frames: &mut Vec<Outgoing>| {
        let end = FRAMES.min(*number + 1 + *number % 9);
        frames.extend((*number..end).map(|number| control(frame(number, size(number)))));
        *number = end;
    };
    // Nobody reads: at some time the wire is full.
    loop {
        batch(&mut number, &mut left);
        assert!(number < FRAMES, "the wire took all {FRAMES} frames");
        if !beside.try_write(&mut left) {
            break;
        }
        assert!(left.is_empty(), "the wire has taken all of it");
    }
    assert!(number > 10, "the wire was full at once");
    let reads = tokio::spawn(drain(client.reader, 0..FRAMES, size));
    let mut taken = 0;
    loop {
        writer.write(&mut left).await.expect("frames go out");
        if number == FRAMES {
            break;
        }
        batch(&mut number, &mut left);
        taken += usize::from(beside.try_write(&mut left));
    }
    assert!(taken > 0, "the wire was full for good");
    reads.await.unwrap();
    drop((client.writer, server.reader));
}

pub(crate) async fn a_client_that_vanishes_is_noticed<W: Wire>() {
    let idle_deadline = if W::SAYS_GOODBYE { Settings::default().idle_deadline } else { SHORT };
    let mut wire: W = start(Settings { idle_deadline, ..Settings::default() }).await;
    let (client, mut server) = connect(&mut wire).await;
    drop(client);
    // Well below the idle deadline of the wires that are to notice by themselves.
    let end = timeout(Duration::from_secs(15), server.reader.read()).await.expect("it is noticed");
    let noticed = if W::SAYS_GOODBYE {
        matches!(end, Err(Closed::Lost(_) | Closed::ByPeer { .. }))
    } else {
        end == Err(Closed::Idle)
    };
    assert!(noticed, "{end:?}");
}

pub(crate) async fn a_cancelled_read_loses_nothing<W: Wire>() {
    const BURSTS: usize = 20;
    const FRAMES_OF_BURST: usize = 25;
    const FRAMES: usize = BURSTS * FRAMES_OF_BURST;
    let mut wire: W = start(Settings::default()).await;
    let (client, mut server) = connect(&mut wire).await;
    // A burst for each cancelled read: however fast the client is, the server has to wait for each of them.
    let bursts = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&bursts);
    let writes = tokio::spawn(async move {
        let mut writer = client.writer;
        for burst in 0..BURSTS {
            waiting.acquire().await.unwrap().forget();
            writer = pour(writer, burst * FRAMES_OF_BURST..(burst + 1) * FRAMES_OF_BURST, mixed).await;
        }
        writer
    });
    let mut cancelled = 0;
    for number in 0..FRAMES {
        let read = loop {
            tokio::select! {
                biased;
                read = server.reader.read() => break read,
                // Ready after a moment, at another place of the read each time.
                () = tokio::task::yield_now() => {
                    cancelled += 1;
                    bursts.add_permits(1);
                }
            }
        };
        assert_eq!(read.expect("a frame"), frame(number, mixed(number)));
    }
    assert!(cancelled >= BURSTS);
    let _ = writes.await.unwrap();
}

pub(crate) async fn nothing_is_accepted_after_shutdown<W: Wire>() {
    let mut wire: W = start(Settings::default()).await;
    let pair = connect(&mut wire).await;
    wire.shut_down();
    assert!(wire.server().accept().await.is_none());
    assert!(wire.server().accept().await.is_none());
    drop(pair);
}
