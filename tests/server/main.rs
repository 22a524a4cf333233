//! The program as its operators and clients meet it: the real binary, real sockets, and whatever may come in on them.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod accounts;
mod api;
mod apps;
mod backpressure;
mod client;
mod contacts;
mod conversations;
mod crash;
mod drain;
mod hostile;
mod http;
mod moves;
mod nodes;
mod operator;
mod parity;
mod person;
mod polls;
mod process;
mod sessions;
mod tokens;
mod webhooks;
mod websocket;
mod wires;
