#!/usr/bin/env python3
"""Runs the clients that share no line with the server against a real one: the example of docs/PROTOCOL.md over
WebSocket and long-polling, and aioquic over WebTransport."""

import json
import subprocess
import sys
import tempfile
import urllib.request

from server import ROOT, start, wait_until_ready


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
