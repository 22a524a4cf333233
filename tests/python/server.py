"""Starts the built server for a program that shares no line with it."""

import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER = os.environ.get("XPUSH_BIN", ROOT / "target" / "debug" / "xpush")
START_DEADLINE = 30  # seconds


def start(data, *more):
    """A server on free ports; gives its process and its HTTP URL, as the banner names it."""
    arguments = ["serve", "--http", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--data", data, *more]
    # The server refuses variables of its prefix that it does not know.
    environment = {name: value for name, value in os.environ.items() if name != "XPUSH_BIN"}
    server = subprocess.Popen([SERVER, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
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
