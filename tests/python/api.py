#!/usr/bin/env python3
"""Holds the HTTP API against its own description: a linter reads the document, and schemathesis calls every operation
of a running server with what it describes and with what it does not. No answer may be a 5xx, and none may have a
status, a content type or a body that the document does not have."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib
import urllib.request

from server import ROOT, SERVER, start, wait_until_ready

LINTER = ROOT / "client-js" / "node_modules" / ".bin" / "redocly"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ignored_auth",
    "wrong_data_is_refused",
]
# One worker: CPython 3.11's parser, which hypothesis asks for its messages, fails in two threads at once.
# Cases of one operation in one phase. The same ones each time: a failure is there again.
EXAMPLES = int(os.environ.get("XPUSH_TEST_API_EXAMPLES", "25"))
# /v1/connect and /v1/poll are wires, with tests of their own; /v1/drain ends the server.
NOT_HERE = ["connect", "poll", "drain"]
# These end what the other calls live on; the run everywhere has them.
ENDS_THE_REST = [
    "appDelete", "userDelete", "userDeactivate", "userRevoke", "passwordChange", "logout", "deviceRemove",
    "deleteChannel", "removeMember", "ban", "unfriend", "block", "deleteGroup",
]
# In these places there is something, so that calls get further than to 404.
PLACES = {
    "user": "ann", "other": "bob", "member": "bob", "channel": "chat:team", "app": "shop", "group": "family", "device": "phone",
}


class Api:
    def __init__(self, url, key):
        self.url, self.key = url, key

    def call(self, method, path, body=None, credential=None):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("authorization", f"Bearer {credential or self.key}")
        if body is not None:
            request.add_header("content-type", "application/json")
            request.data = json.dumps(body).encode()
        answer = urllib.request.urlopen(request, timeout=30).read()
        return json.loads(answer) if answer else None


def lint(document):
    environment = os.environ | {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    config = ROOT / "tests" / "openapi" / "redocly.yaml"
    command = [LINTER, "lint", document, "--config", config, "--format", "stylish", "--max-problems", "1000"]
    return subprocess.run(list(map(str, command)), env=environment).returncode == 0


def run(name, document, url, credential, places, acting, without, folder):
    """One run of schemathesis; tells whether it found nothing."""
    print(f"\n-- {name}", flush=True)
    config = folder / "schemathesis.toml"
    lines = ["[parameters]", *(f'"path.{place}" = "{value}"' for place, value in places.items())]
    if places:
        lines.append('"header.X-Xpush-App" = "default"')
    config.write_text("\n".join(lines) + "\n")
    command = [
        pathlib.Path(sys.executable).parent / "schemathesis", "--config-file", config, "run", document, "--url", url,
        "--header", f"Authorization: Bearer {credential}",
        "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing",
        "--max-examples", EXAMPLES, "--generation-deterministic",
        "--continue-on-failure", "--request-timeout", "30", "--no-color",
    ]
    for operation in NOT_HERE + without:
        command += ["--exclude-operation-id", operation]
    hooks = ROOT / "tests" / "python" / "api_hooks.py"
    environment = os.environ | {"SCHEMATHESIS_HOOKS": str(hooks)} | ({} if acting is None else {"API_ACTING": acting})
    return subprocess.run(list(map(str, command)), cwd=folder, env=environment).returncode == 0


def furnish(api):
    """Makes what PLACES name; gives a token of ann."""
    token = None
    for user in ["bob", "cid", "ann"]:
        made = api.call("POST", "/v1/users", {"user": user, "password": "correct horse battery staple"})
        token = made["access_token"]
    api.call("POST", "/v1/apps", {"app": "shop", "name": "Shop"})
    members = {"as": "ann", "channel": "chat:team", "title": "Team", "members": ["bob", "cid"], "state": "active"}
    api.call("POST", "/v1/channels", members)
    api.call("POST", "/v1/users/ann/devices", {"device": "phone", "platform": "ios"})
    api.call("PUT", "/v1/users/ann/friends/bob")
    api.call("PUT", "/v1/users/bob/friends/ann")
    api.call("PUT", "/v1/users/ann/groups/family", {"name": "Family", "users": ["bob"]})
    api.call("PUT", "/v1/users/ann/direct/bob")
    api.call("POST", "/v1/publish", {"channels": ["chat:team", "room:lobby"], "data": {"text": "hello"}})
    return token


def main():
    with tempfile.TemporaryDirectory() as data:
        folder = pathlib.Path(data)
        # As in production: nobody is let in without a credential.
        server, url = start(str(folder / "data"), "--set", "auth.anonymous=false")
        try:
            wait_until_ready(url)
            keys = tomllib.loads((folder / "data" / "dev-keys.toml").read_text())
            api = Api(url, keys["api_key"])
            document = folder / "openapi.json"
            document.write_text(json.dumps(api.call("GET", "/v1/openapi.json"), indent=1))
            good = lint(document)
            ann = furnish(api)
            runs = [
                ("as operator, where there is something", api.key, PLACES, "ann", ENDS_THE_REST),
                ("as a user, where there is something", ann, PLACES, "", ENDS_THE_REST),
                ("as operator, everywhere", api.key, {}, None, []),
            ]
            wanted = sys.argv[1:]
            for number, (name, credential, places, acting, without) in enumerate(runs):
                if wanted and str(number) not in wanted:
                    continue
                good &= run(name, document, url, credential, places, acting, without, folder)
        finally:
            server.terminate()
            good &= server.wait(timeout=30) == 0
    sys.exit(not good)


main()
