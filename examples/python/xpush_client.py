#!/usr/bin/env python3
"""A client written from docs/PROTOCOL.md alone: publishes numbered messages, and receives each once and in order,
across a reconnect in the middle. Exits with 0 if so.

    xpush_client.py [--wire websocket|longpoll] [--url http://127.0.0.1:8080] [--token TOKEN] [--count 20]
"""
import argparse, asyncio, json, sys, urllib.request, uuid


class LongPoll:
    def __init__(self, url):
        self.url, self.state, self.waiting = url + "/v1/poll", None, []

    async def send(self, frame):
        self.waiting.append(frame)  # the next poll brings it

    async def receive(self):
        body, self.waiting = {"frames": self.waiting[:64]}, self.waiting[64:]
        body |= {"state": self.state} if self.state else {}
        request = urllib.request.Request(self.url, json.dumps(body).encode())
        answer = json.load(await asyncio.to_thread(urllib.request.urlopen, request, timeout=40))
        self.state = answer.get("state")
        return answer["frames"]

    async def close(self):
        pass  # who polls no more is gone


class WebSocket:
    def __init__(self, url):
        self.url, self.socket = url.replace("http", "ws", 1) + "/v1/connect", None

    async def send(self, frame):
        if not self.socket:
            import websockets  # from PyPI
            self.socket = await websockets.connect(self.url, subprotocols=["xpush.v1.json"])
        await self.socket.send(json.dumps(frame))

    async def receive(self):
        return [json.loads(await self.socket.recv())]

    async def close(self):
        await self.socket.close(4000)


async def run(wire_of, channel, token, count):
    run_id, state, cursor, got = uuid.uuid4().hex[:8], None, None, []
    unanswered = {i + 2: {"id": i + 2, "channel": channel, "message_id": f"{run_id}-{i}", "data": i} for i in range(count)}
    for target in (count // 2, count):  # the first connection is left half-way
        wire = wire_of()
        vector = [{"channel": channel} | ({"cursor": cursor} if cursor else {})]
        connect = {"id": 1, "token": token, "state": state, "subscriptions": vector, "agent": "python-example/1"}
        await wire.send({"connect": {key: value for key, value in connect.items() if value is not None}})
        while len(got) < target or (target == count and unanswered):
            for name, body in (pair for frame in await asyncio.wait_for(wire.receive(), 60) for pair in frame.items()):
                if name == "connected":
                    state = body["state"]
                elif name == "subscribed":
                    assert "gap" not in body, f"lost: {body}"
                    cursor = body["cursor"]
                    for publish in unanswered.values():  # after a reconnect once more, with the same message ids
                        await wire.send({"publish": publish})
                elif name == "published":
                    unanswered.pop(body["id"], None)
                elif name == "publication" and body["offset"] > cursor["offset"]:
                    # On one stream a new epoch comes behind its gap, and that ends this program.
                    assert body.get("epoch", cursor["epoch"]) == cursor["epoch"], f"of another epoch: {body}"
                    assert body["offset"] == cursor["offset"] + 1, f"a hole before {body}"
                    cursor["offset"] = body["offset"]
                    got += [body["data"]] if body["message_id"].startswith(run_id) else []
                elif name in ("error", "gap", "close"):
                    sys.exit(f"{name}: {body}")
        await wire.close()
    assert got == list(range(count)), f"not each once and in order: {got}"
    print(f"{count} messages, each once and in order, across a reconnect")


parser = argparse.ArgumentParser()
for name, default in {"wire": "websocket", "url": "http://127.0.0.1:8080", "channel": "room:python", "token": None}.items():
    parser.add_argument("--" + name, default=default)
parser.add_argument("--count", type=int, default=20)
args = parser.parse_args()
wire = {"websocket": WebSocket, "longpoll": LongPoll}[args.wire]
asyncio.run(run(lambda: wire(args.url), args.channel, args.token, args.count))
