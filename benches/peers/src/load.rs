//! The load: clients on one core, on raw sockets, told by one epoll what there is to read.
//!
//! It is open-loop: each message has the moment at which it was meant to be sent, and its latency counts from there, so
//! that a server that stalls can't hide it by stalling the sender too. What is read is taken apart only as far as it
//! takes to find where messages begin, so that the server is what limits a run, and not this.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
};

use crate::{
    framing::Kind,
    payload,
    peer::{Peer, Step, Subscriber, Until},
    server,
};

/// Connections that are being made at the same time; every server's backlog holds more.
const IN_FLIGHT: usize = 64;
/// To connect and subscribe all of them.
const CONNECTING: Duration = Duration::from_secs(60);
/// What is read at once: what piles up in a socket at the highest rates.
const READ: usize = 256 * 1024;
/// What the kernel tells at once; few enough that the timetable is looked at again within half a millisecond.
const EVENTS: usize = 256;
/// Of the latencies that are recorded: 1 microsecond to 2 minutes, 2 digits.
const LATENCY_LIMIT_US: u64 = 120_000_000;

/// What is published, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timetable {
    /// Messages a second, over all publishers, which take turns.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// From the last message's moment until what is missing counts as lost.
    pub(crate) grace: Duration,
}

pub(crate) struct Outcome {
    pub(crate) expected: u64,
    pub(crate) received: u64,
    /// Twice, or behind a later one.
    pub(crate) disordered: u64,
    pub(crate) latency_us: Histogram<u64>,
    /// From the first message's moment to the last delivery.
    pub(crate) took: Duration,
    /// The last that a client heard while it lasted and that was no message.
    pub(crate) heard: String,
    /// How much of its core the load itself needed. Near 1, it is what was measured.
    pub(crate) load_share: f64,
    pub(crate) load_cpu: Duration,
}

pub(crate) struct Load<'a> {
    peer: &'a dyn Peer,
    port: u16,
    poll: OwnedFd,
    clients: Vec<Client>,
    /// By channel, in `clients`.
    publishers: Vec<usize>,
    subscribers: u64,
    ready: usize,
    buffer: Vec<u8>,
    tally: Tally,
}

struct Client {
    socket: TcpStream,
    channel: String,
    /// What it still has to say and hear until it is ready; the first one is said.
    steps: VecDeque<Step>,
    upgraded: bool,
    /// The beginning of a frame whose end is still to come.
    input: Vec<u8>,
    /// What the socket did not take yet. The timetable bounds it.
    output: Vec<u8>,
    /// Of the newest message it got, and one more.
    next: u64,
}

struct Tally {
    began: Instant,
    rate: f64,
    received: u64,
    disordered: u64,
    latency_us: Histogram<u64>,
    last: Instant,
    /// The last that a client heard that was no message; tells what happened where something is missing.
    heard: String,
}

impl<'a> Load<'a> {
    pub(crate) fn new(peer: &'a dyn Peer, port: u16) -> anyhow::Result<Self> {
        Ok(Self {
            peer,
            port,
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            clients: Vec::new(),
            publishers: Vec::new(),
            subscribers: 0,
            ready: 0,
            buffer: vec![0; READ],
            tally: Tally::new(1.0)?,
        })
    }

    /// Connects subscribers, spread over the channels, and waits until they are subscribed.
    pub(crate) fn subscribe(
        &mut self,
        subscribers: usize,
        channels: usize,
        named: bool,
    ) -> anyhow::Result<()> {
        let (peer, port) = (self.peer, self.port);
        self.subscribers += subscribers as u64;
        self.connect((0..subscribers).map(|number| {
            let channel = channel(number % channels);
            (peer.subscriber(&Subscriber { port, number, channel: &channel, named }), channel)
        }))
    }

    /// Connects one publisher for each channel.
    pub(crate) fn make_publishers(&mut self, channels: usize) -> anyhow::Result<()> {
        let (peer, port) = (self.peer, self.port);
        let first = self.clients.len();
        self.publishers = (first..first + channels).collect();
        self.connect((0..channels).map(|number| {
            let channel = channel(number);
            (peer.publisher(port, &channel), channel)
        }))
    }

    fn connect(&mut self, clients: impl Iterator<Item = (Vec<Step>, String)>) -> anyhow::Result<()> {
        let deadline = Instant::now() + CONNECTING;
        let mut clients = clients.peekable();
        loop {
            while self.clients.len() - self.ready < IN_FLIGHT
                && let Some((steps, channel)) = clients.next()
            {
                self.add(steps, channel)?;
            }
            if clients.peek().is_none() && self.ready == self.clients.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let (ready, all) = (self.ready, self.clients.len());
                bail!("only {ready} of {all} clients were ready in time; heard last: {}", self.tally.heard);
            }
            self.turn(deadline)?;
        }
    }

    fn add(&mut self, steps: Vec<Step>, channel: String) -> anyhow::Result<()> {
        // On loopback it is there at once, as long as the server's backlog has room.
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(&self.poll, &socket, EventData::new_u64(self.clients.len() as u64), EventFlags::IN)?;
        let mut client = Client {
            socket,
            channel,
            steps: steps.into(),
            upgraded: false,
            input: Vec::new(),
            output: Vec::new(),
            next: 0,
        };
        let opening = client.steps.front_mut().context("a client with nothing to say")?;
        let opening = std::mem::take(&mut opening.send);
        client.write(&opening)?;
        self.clients.push(client);
        Ok(())
    }

    /// Publishes to the timetable, and waits until everything arrived or is given up.
    pub(crate) fn publish(&mut self, timetable: &Timetable) -> anyhow::Result<Outcome> {
        let total = (timetable.rate * timetable.duration.as_secs_f64()) as u64;
        let expected = total * self.subscribers / self.publishers.len() as u64;
        let before = server::usage(std::process::id())?;
        self.tally = Tally::new(timetable.rate)?;
        let deadline = self.tally.moment(total) + timetable.grace;
        let mut number = 0;
        while self.tally.received < expected {
            let now = Instant::now();
            while number < total && self.tally.moment(number) <= now {
                let id = self.publishers[(number % self.publishers.len() as u64) as usize];
                let publisher = &mut self.clients[id];
                let message = self.peer.publication(&publisher.channel, number, &payload::of(number));
                publisher.write(&message).context("a publisher's connection ended")?;
                if !publisher.output.is_empty() {
                    self.watch_output(id)?;
                }
                number += 1;
            }
            if now > deadline {
                break;
            }
            let next = if number < total { self.tally.moment(number) } else { deadline };
            self.turn(next)?;
        }
        let spent = Instant::now().saturating_duration_since(self.tally.began);
        let load_cpu = server::usage(std::process::id())?.cpu - before.cpu;
        let tally = std::mem::replace(&mut self.tally, Tally::new(1.0)?);
        Ok(Outcome {
            expected,
            received: tally.received,
            disordered: tally.disordered,
            latency_us: tally.latency_us,
            heard: tally.heard,
            took: tally.last.saturating_duration_since(tally.began),
            load_share: load_cpu.as_secs_f64() / spent.as_secs_f64(),
            load_cpu,
        })
    }

    /// Takes care of what comes in for as long as `duration`.
    pub(crate) fn settle(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Waits until something comes, or until a moment, and takes what came.
    fn turn(&mut self, until: Instant) -> anyhow::Result<()> {
        let wait = until.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.poll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let id = event.data.u64() as usize;
            let flags = event.flags;
            if flags.contains(EventFlags::OUT) {
                let rest = std::mem::take(&mut self.clients[id].output);
                self.clients[id].write(&rest)?;
                self.watch_output(id)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                let client = &mut self.clients[id];
                let was_ready = client.steps.is_empty();
                client.readable(self.peer, &mut self.buffer, &mut self.tally)?;
                self.ready += usize::from(!was_ready && client.steps.is_empty());
                if !client.output.is_empty() {
                    self.watch_output(id)?;
                }
            }
        }
        Ok(())
    }

    /// The kernel is asked to tell when a socket takes more exactly as long as something waits for that.
    fn watch_output(&self, id: usize) -> anyhow::Result<()> {
        let client = &self.clients[id];
        let flags = if client.output.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        Ok(epoll::modify(&self.poll, &client.socket, EventData::new_u64(id as u64), flags)?)
    }
}

impl Client {
    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut written = 0;
        while self.output.is_empty() && written < bytes.len() {
            match self.socket.write(&bytes[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.output.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn readable(&mut self, peer: &dyn Peer, buffer: &mut [u8], tally: &mut Tally) -> anyhow::Result<()> {
        let length = match self.socket.read(buffer) {
            Ok(0) => bail!("the server closed a connection; heard last: {}", tally.heard),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(());
            }
            Err(error) => return Err(error).context("a connection broke"),
        };
        let now = Instant::now();
        if self.input.is_empty() {
            let taken = self.take(peer, &buffer[..length], tally, now)?;
            self.input.extend_from_slice(&buffer[taken..length]);
        } else {
            self.input.extend_from_slice(&buffer[..length]);
            let input = std::mem::take(&mut self.input);
            let taken = self.take(peer, &input, tally, now)?;
            self.input.extend_from_slice(&input[taken..]);
        }
        Ok(())
    }

    /// Takes all frames that are whole, and says how long they were.
    fn take(
        &mut self,
        peer: &dyn Peer,
        input: &[u8],
        tally: &mut Tally,
        now: Instant,
    ) -> anyhow::Result<usize> {
        let framing = peer.framing();
        let mut taken = 0;
        while let Some(frame) = framing.split(&input[taken..], self.upgraded)? {
            let body = &input[taken..][frame.body];
            taken += frame.whole;
            match frame.kind {
                Kind::Ping => self.write(&framing.pong(body))?,
                Kind::Close => bail!("the server wants no more: {}", shown(body)),
                Kind::Head => {
                    ensure!(body.starts_with(b"HTTP/1.1 101 "), "no WebSocket: {}", shown(body));
                    self.upgraded = true;
                    self.heard(Heard::Upgrade)?;
                }
                Kind::Data => {
                    let mut carried = false;
                    for number in payload::numbers(body) {
                        carried = true;
                        tally.delivered(number, &mut self.next, now);
                    }
                    if carried {
                        continue;
                    }
                    if let Some(answer) = peer.answer(body) {
                        self.write(&answer)?;
                        continue;
                    }
                    tally.heard = shown(body);
                    self.heard(Heard::Data(body))?;
                }
            }
        }
        Ok(taken)
    }

    /// Goes one step on if this is what it waited for.
    fn heard(&mut self, heard: Heard<'_>) -> anyhow::Result<()> {
        let Some(step) = self.steps.front() else { return Ok(()) };
        let is_it = match (&step.until, heard) {
            (Until::Upgraded, Heard::Upgrade) => true,
            (Until::Says(words), Heard::Data(body)) => memchr::memmem::find(body, words).is_some(),
            _ => false,
        };
        if is_it {
            self.steps.pop_front();
            if let Some(next) = self.steps.front_mut() {
                let send = std::mem::take(&mut next.send);
                self.write(&send)?;
            }
        }
        Ok(())
    }
}

enum Heard<'a> {
    Upgrade,
    Data(&'a [u8]),
}

impl Tally {
    fn new(rate: f64) -> anyhow::Result<Self> {
        let began = Instant::now();
        let latency_us = Histogram::new_with_bounds(1, LATENCY_LIMIT_US, 2)?;
        Ok(Self { began, rate, received: 0, disordered: 0, latency_us, last: began, heard: String::new() })
    }

    fn moment(&self, number: u64) -> Instant {
        self.began + Duration::from_secs_f64(number as f64 / self.rate)
    }

    fn delivered(&mut self, number: u64, next: &mut u64, now: Instant) {
        if number < *next {
            self.disordered += 1;
            return;
        }
        *next = number + 1;
        self.received += 1;
        self.last = now;
        let latency = now.saturating_duration_since(self.moment(number)).as_micros() as u64;
        self.latency_us.saturating_record(latency.max(1));
    }
}

/// Of `live:` in XPUSH, and short in all others.
fn channel(number: usize) -> String {
    format!("c{number}")
}

/// The beginning of what a server said, for people: of a binary frame, the words in it.
fn shown(bytes: &[u8]) -> String {
    let readable = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' };
    let text: String = bytes.iter().take(120).map(readable).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
