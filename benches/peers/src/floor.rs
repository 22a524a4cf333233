//! The floor: the least that a WebSocket server can do for a message, so that the others' costs have a bottom line.
//!
//! It shakes hands, takes a publisher's frame apart as far as its mask demands, and makes one write for each subscriber.
//! Invariant: it keeps nothing. Its sockets block, so a subscriber that does not read stops it, instead of making it
//! keep a queue; that is no way to serve people, and the cheapest way to send.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    rc::Rc,
};

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::websocket::{self, Opcode};

/// What is read at once: more than any message of the load, and than most of what piles up in a socket.
const READ: usize = 64 * 1024;
/// What the kernel tells at once.
const EVENTS: usize = 256;
/// No request or message of the load is as long.
const INPUT_LIMIT: usize = 64 * 1024;

/// Serves until it is killed. Subscribers upgrade at `/sub/CHANNEL`, publishers at `/pub/CHANNEL`.
pub(crate) fn serve(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listening = listener.as_raw_fd() as u64;
    epoll::add(&poll, &listener, EventData::new_u64(listening), EventFlags::IN)?;
    let mut floor = Floor::default();
    let mut buffer = vec![0; READ];
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let id = event.data.u64();
            if id == listening {
                let (socket, _) = listener.accept()?;
                socket.set_nodelay(true)?;
                let id = socket.as_raw_fd() as u64;
                epoll::add(&poll, &socket, EventData::new_u64(id), EventFlags::IN)?;
                let client = Client { socket: Rc::new(socket), input: Vec::new(), stage: Stage::Greeting };
                floor.clients.insert(id, client);
            } else {
                floor.readable(id, &mut buffer);
            }
        }
    }
}

#[derive(Default)]
struct Floor {
    clients: HashMap<u64, Client>,
    channels: HashMap<String, usize>,
    /// By channel.
    subscribers: Vec<Vec<Rc<TcpStream>>>,
}

struct Client {
    socket: Rc<TcpStream>,
    /// The beginning of a request or frame whose end is still to come.
    input: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Its request is not whole yet.
    Greeting,
    Subscriber,
    Publisher {
        channel: usize,
    },
}

impl Floor {
    fn readable(&mut self, id: u64, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let goes_on = match (&*client.socket).read(buffer) {
            Ok(0) => false,
            Ok(length) => {
                client.input.extend_from_slice(&buffer[..length]);
                self.take(id)
            }
            Err(error) => error.kind() == ErrorKind::Interrupted,
        };
        if !goes_on && let Some(client) = self.clients.remove(&id) {
            for subscribers in &mut self.subscribers {
                subscribers.retain(|socket| !Rc::ptr_eq(socket, &client.socket));
            }
        }
    }

    /// Takes what is whole of a client's input. `false`: the client is to go.
    fn take(&mut self, id: u64) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        match client.stage {
            Stage::Greeting => {
                let Some(end) = websocket::head_end(&client.input) else {
                    return client.input.len() < INPUT_LIMIT;
                };
                let Some((path, answer)) = websocket::accept(&client.input[..end]) else { return false };
                let Some((role, channel)) = path.trim_start_matches('/').split_once('/') else {
                    return false;
                };
                let next = self.subscribers.len();
                let channel = *self.channels.entry(channel.to_owned()).or_insert(next);
                if channel == next {
                    self.subscribers.push(Vec::new());
                }
                client.stage = match role {
                    "sub" => {
                        self.subscribers[channel].push(Rc::clone(&client.socket));
                        Stage::Subscriber
                    }
                    _ => Stage::Publisher { channel },
                };
                client.input = client.input.split_off(end);
                (&*client.socket).write_all(&answer).is_ok()
            }
            // It has nothing to say, but for its end.
            Stage::Subscriber => false,
            Stage::Publisher { channel } => {
                let mut from = 0;
                while let Ok(Some(frame)) = websocket::split(&client.input[from..]) {
                    let message = websocket::unmasked(&client.input[from..][..frame.whole], &frame);
                    from += frame.whole;
                    if frame.opcode == Opcode::CLOSE {
                        return false;
                    }
                    let out = websocket::server_frame(frame.opcode, &message);
                    for mut subscriber in self.subscribers[channel].iter().map(Rc::as_ref) {
                        // Who is gone is found out by its own end.
                        let _ = subscriber.write_all(&out);
                    }
                }
                client.input.drain(..from);
                client.input.len() < INPUT_LIMIT
            }
        }
    }
}
