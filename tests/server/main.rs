//! The program as its operators and clients meet it: the real binary, real sockets, and whatever may come in on them.

mod api;
mod client;
mod drain;
mod http;
mod operator;
mod process;
mod tokens;
mod wires;
