"""Starts the built server for a program that shares no line with it."""

import os
import pathlib
import re
import shutil
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
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XPUSH_")}
    environment |= share(pathlib.Path(data))
    server = subprocess.Popen([SERVER, *arguments], stdout=subprocess.PIPE, text=True, env=environment)
    for line in server.stdout:
        if found := re.search(r"HTTP\s+(http://\S+)", line):
            return server, found.group(1)
    sys.exit(f"the server did not start: exit status {server.wait()}")


def share(data):
    """Where xpush-test-servers runs the tests, a server keeps what it knows in the stores of a cluster: gives what its
    environment says of them. Its part of them goes by the name of its folder."""
    if not (keys := os.environ.get("XPUSH_TEST_KEYS")):
        return {}
    data.mkdir(parents=True, exist_ok=True)
    shutil.copy(keys, data / "dev-keys.toml")
    mark = "XPUSH_TEST_NODE_"
    told = {f"XPUSH_{name[len(mark):]}": value for name, value in os.environ.items() if name.startswith(mark)}
    name = f"{data.parent.name}-{data.name}"
    return told | {
        "XPUSH_REDIS__PREFIX": name,
        "XPUSH_MONGODB__DATABASE": name,
        "XPUSH_ZOOKEEPER__ROOT": f"/{name}",
    }


def wait_until_ready(url):
    deadline = time.monotonic() + START_DEADLINE
    while True:
        try:
            return urllib.request.urlopen(url + "/readyz", timeout=5).read()
        except OSError:
            if time.monotonic() > deadline:
                raise
