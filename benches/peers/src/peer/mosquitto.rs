//! Mosquitto: MQTT 3.1.1 over TCP, QoS 0, a topic for each channel.

use std::{fs, path::Path, process::Command};

use super::{Peer, Step, Subscriber, program, says_version};
use crate::framing::Framing;

/// Of MQTT 3.1.1, sections 3.1 to 3.9: type and flags, the first byte of a packet.
const CONNECT: u8 = 0x10;
const CONNECTED: &[u8] = &[0x20, 2, 0, 0];
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
/// To packet 1, with QoS 0.
const SUBSCRIBED: &[u8] = &[0x90, 3, 0, 1, 0];

pub(super) struct Mosquitto;

impl Peer for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn version(&self) -> anyhow::Result<String> {
        // Its help begins with its version.
        says_version(&program("mosquitto"), "-h")
    }

    fn manner(&self) -> &'static str {
        "MQTT 3.1.1 over TCP, QoS 0; nothing kept"
    }

    fn command(&self, folder: &Path, port: u16) -> anyhow::Result<Command> {
        let path = folder.join("mosquitto.conf");
        fs::write(
            &path,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
                 log_type error\n# Else it drops what a busy socket does not take at once.\nmax_queued_messages 0\n"
            ),
        )?;
        let mut command = Command::new(program("mosquitto"));
        command.arg("-c").arg(path);
        Ok(command)
    }

    fn framing(&self) -> Framing {
        Framing::Mqtt
    }

    fn subscriber(&self, client: &Subscriber<'_>) -> Vec<Step> {
        let packet_id = 1_u16.to_be_bytes();
        let subscribe = packet(SUBSCRIBE, &[&packet_id, &text(client.channel), &[0]]);
        vec![
            Step::says(connect(&format!("s{}", client.number)), CONNECTED),
            Step::says(subscribe, SUBSCRIBED),
        ]
    }

    fn publisher(&self, _port: u16, channel: &str) -> Vec<Step> {
        vec![Step::says(connect(&format!("p{channel}")), CONNECTED)]
    }

    fn publication(&self, channel: &str, _number: u64, payload: &[u8]) -> Vec<u8> {
        packet(PUBLISH, &[&text(channel), payload])
    }
}

/// A clean session without keep-alive.
fn connect(client_id: &str) -> Vec<u8> {
    let (level, clean_session, keep_alive) = ([4], [2], [0, 0]);
    packet(CONNECT, &[&text("MQTT"), &level, &clean_session, &keep_alive, &text(client_id)])
}

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    let mut packet = vec![kind];
    while length > 0x7f {
        packet.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packet.push(length as u8);
    packet.extend(parts.concat());
    packet
}

/// With its length in front; all texts here are short.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}
