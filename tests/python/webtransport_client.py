#!/usr/bin/env python3
"""A WebTransport client that shares no line with the server: aioquic's HTTP/3, and the protocol by its document.

It connects, subscribes, publishes once, prints each frame that it receives as a line of JSON, and exits with 0 when
its own publication came back. With 1 it names what did not happen; with 2 the arguments are wrong.

    pip install aioquic==1.7.2
    client.py 127.0.0.1:8443 --certificate-hash "$HASH" --channel room:lobby
"""

import argparse
import asyncio
import base64
import hashlib
import json
import ssl
import sys
import uuid

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.buffer import Buffer, BufferReadError, encode_uint_var
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection
from aioquic.h3.events import (
    DatagramReceived,
    DataReceived,
    HeadersReceived,
    WebTransportStreamDataReceived,
)
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated
from cryptography.hazmat.primitives.serialization import Encoding

PATH = "/v1/connect"
SUBPROTOCOL = "xpush.v1.json"
CLOSE_SESSION = 0x2843  # the capsule CLOSE_WEBTRANSPORT_SESSION
NORMAL = 4000


class Failed(Exception):
    """Why the client could not do its work."""


class Frames:
    """Puts the frames of a stream together: each stands behind its length, a QUIC varint."""

    def __init__(self):
        self._bytes = b""

    def push(self, data):
        self._bytes += data
        frames = []
        while True:
            buffer = Buffer(data=self._bytes)
            try:
                frame = buffer.pull_bytes(buffer.pull_uint_var())
            except BufferReadError:
                return frames
            self._bytes = self._bytes[buffer.tell() :]
            frames.append(json.loads(frame))


class Session(QuicConnectionProtocol):
    """One WebTransport session on a connection of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._http = H3Connection(self._quic, enable_webtransport=True)
        self._session = None
        self._control = None
        self._streams = {}
        self._opened = asyncio.get_running_loop().create_future()
        self.frames = asyncio.Queue()

    def certificate_hash(self):
        certificate = self._quic.tls._peer_certificate
        return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()

    async def open(self, authority, origin):
        headers = [
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", authority.encode()),
            (b":path", PATH.encode()),
            (b":protocol", b"webtransport"),
            (b"wt-available-protocols", f'"{SUBPROTOCOL}"'.encode()),
        ]
        if origin:
            headers.append((b"origin", origin.encode()))
        self._session = self._quic.get_next_available_stream_id()
        self._http.send_headers(self._session, headers)
        self.transmit()
        answer = await self._opened
        if answer.get(b":status") != b"200":
            raise Failed(f"the server answered with status {answer.get(b':status')}")
        if answer.get(b"wt-protocol") != f'"{SUBPROTOCOL}"'.encode():
            raise Failed(f"the server chose the subprotocol {answer.get(b'wt-protocol')}")
        self._control = self._http.create_webtransport_stream(self._session)
        # aioquic knows only streams that the server opens to be WebTransport's: the others it must be told.
        with self._http._get_or_create_stream(self._control) as stream:
            stream.frame_type = FrameType.WEBTRANSPORT_STREAM
            stream.session_id = self._session

    def send(self, frame):
        frame = json.dumps(frame).encode()
        self._quic.send_stream_data(self._control, encode_uint_var(len(frame)) + frame)
        self.transmit()

    def leave(self, reason):
        value = NORMAL.to_bytes(4, "big") + reason.encode()
        capsule = encode_uint_var(CLOSE_SESSION) + encode_uint_var(len(value)) + value
        self._http.send_data(self._session, capsule, end_stream=True)
        self.transmit()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self._end(f"the connection ended: {event.error_code} {event.reason_phrase}")
        for event in self._http.handle_event(event):
            if isinstance(event, HeadersReceived) and event.stream_id == self._session:
                self._opened.set_result(dict(event.headers))
            elif isinstance(event, WebTransportStreamDataReceived):
                frames = self._streams.setdefault(event.stream_id, Frames())
                self._take(frames.push(event.data))
            elif isinstance(event, DatagramReceived) and event.stream_id == self._session:
                self._take(Frames().push(event.data))
            elif isinstance(event, DataReceived) and event.stream_id == self._session:
                self._end(f"the server closed the session: {event.data!r}")

    def _take(self, frames):
        for frame in frames:
            self.frames.put_nowait(frame)

    def _end(self, why):
        if not self._opened.done():
            self._opened.set_exception(Failed(why))
        self.frames.put_nowait(Failed(why))


async def wait_for(session, seen, wanted):
    """Prints frames as they come, until one is wanted; `seen` keeps all."""
    for frame in seen:
        if wanted(frame):
            return frame
    while True:
        frame = await session.frames.get()
        if isinstance(frame, Failed):
            raise frame
        print(json.dumps(frame), flush=True)
        seen.append(frame)
        if "error" in frame or "close" in frame:
            raise Failed(f"the server answered {frame}")
        if wanted(frame):
            return frame


async def run(arguments):
    host, _, port = arguments.address.rpartition(":")
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN,
        is_client=True,
        max_datagram_frame_size=65536,
        # The hash is compared below, as a browser does with serverCertificateHashes.
        verify_mode=ssl.CERT_NONE,
    )
    async with connect(
        host.strip("[]"), int(port), configuration=configuration, create_protocol=Session
    ) as session:
        if arguments.certificate_hash:
            expected = base64.b64decode(arguments.certificate_hash)
            if session.certificate_hash() != expected:
                raise Failed("the server shows another certificate")
        await session.open(arguments.address, arguments.origin)
        seen = []

        connecting = {"id": 1, "agent": "aioquic"}
        if arguments.token:
            connecting["token"] = arguments.token
        session.send({"connect": connecting})
        await wait_for(session, seen, lambda frame: "connected" in frame)

        session.send({"subscribe": {"id": 2, "channel": arguments.channel}})
        await wait_for(session, seen, lambda frame: frame.get("subscribed", {}).get("id") == 2)

        message_id = uuid.uuid4().hex
        session.send(
            {
                "publish": {
                    "id": 3,
                    "channel": arguments.channel,
                    "message_id": message_id,
                    "event": "greeting",
                    "data": {"text": "hello from Python"},
                }
            }
        )
        # They come on different streams, in either order.
        await wait_for(session, seen, lambda frame: frame.get("published", {}).get("id") == 3)
        await wait_for(
            session, seen, lambda frame: frame.get("publication", {}).get("message_id") == message_id
        )
        session.leave("done")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="host:port")
    trust = parser.add_mutually_exclusive_group(required=True)
    trust.add_argument("--certificate-hash", help="SHA-256 of the certificate, in base64")
    trust.add_argument("--insecure", action="store_true", help="accept any certificate")
    parser.add_argument("--token", help="who this is; anonymous without")
    parser.add_argument("--channel", default="room:lobby")
    parser.add_argument("--origin", help="the Origin of a page that this pretends to be")
    parser.add_argument("--timeout", type=float, default=20, help="seconds for all of it")
    arguments = parser.parse_args()
    try:
        asyncio.run(asyncio.wait_for(run(arguments), arguments.timeout))
    except Failed as failure:
        sys.exit(f"failed: {failure}")
    except ConnectionError as failure:
        sys.exit(f"failed: no connection: {failure}")
    except (TimeoutError, asyncio.TimeoutError):
        sys.exit(f"failed: not done within {arguments.timeout} s")


if __name__ == "__main__":
    main()
