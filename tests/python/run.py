#!/usr/bin/env python3
"""Runs the clients that share no line with the server against a real one: the example of docs/PROTOCOL.md over
WebSocket and long-polling, and aioquic over WebTransport."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER = os.environ.get("XPUSH_BIN", ROOT / "target" / "debug" / "xpush")
START_DEADLINE = 30  # seconds


def start(data):
    """A server on free ports; gives its process and its HTTP URL, as the banner names it."""
    arguments = ["serve", "--http", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--data", data]
    server = subprocess.Popen([SERVER, *arguments], stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if found := re.search(r"HTTP\s+(http://\S+)", line):
            return server, found.group(1)
    sys.exit(f"the server did not start: exit status {server.wait()}")


def wait_until_ready(url):
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            return urllib.request.urlopen(url + "/readyz", timeout=5).read()
        except OSError:
            if time.monotonic() > deadline:
                raise


def main():
    failed = 0
    with tempfile.TemporaryDirectory() as data:
        server, url = start(data)
        try:
            wait_until_ready(url)
            wires = json.load(urllib.request.urlopen(url + "/v1/transports"))
            webtransport = next(w["url"] for w in wires["transports"] if w["kind"] == "webtransport")
            authority = webtransport.removeprefix("https://").split("/")[0]
            example = ROOT / "examples" / "python" / "xpush_client.py"
            aioquic = ROOT / "tests" / "python" / "webtransport_client.py"
            clients = {
                "websocket": [example, "--wire", "websocket", "--url", url],
                "longpoll": [example, "--wire", "longpoll", "--url", url],
                "webtransport (aioquic)": [
                    aioquic, authority, "--certificate-hash", wires["certificate_hashes"][0], "--channel", "room:aioquic",
                ],
            }
            for name, command in clients.items():
                done = subprocess.run([sys.executable, *map(str, command)], timeout=120)
                print(f"{'ok' if done.returncode == 0 else 'FAILED'}  {name}")
                failed += done.returncode != 0
        finally:
            server.terminate()
            failed += server.wait(timeout=30) != 0
    print(f"{len(clients) - failed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
