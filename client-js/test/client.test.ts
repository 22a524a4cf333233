import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Client } from "../src/client.js";
import { ClosedError } from "../src/errors/closed-error.js";
import { CommandError } from "../src/errors/command-error.js";
import { WireError } from "../src/errors/wire-error.js";
import type { ClientOptions } from "../src/options.js";
import { FIRST_REST } from "../src/wire-memory.js";
import { EPOCH, FakeNet } from "./fake-net.js";

let net: FakeNet;
let clients: Client[];

beforeEach(() => {
  net = new FakeNet();
  clients = [];
});

afterEach(() => {
  for (const client of clients) client.close();
  net.restore();
});

function connect(options: ClientOptions = {}): Client {
  const client = new Client("https://x", { ...net.options, ...options });
  clients.push(client);
  return client;
}

/** What a channel's listeners get: data, and gaps as `from-to`. */
function listen(client: Client, name = "room:a"): unknown[] {
  const heard: unknown[] = [];
  const channel = client.channel(name);
  channel.on("publication", ({ data }) => heard.push(data));
  channel.on("gap", ({ from, to }) => heard.push(`${from}-${to}`));
  void channel.subscribe();
  return heard;
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

// Races.

test("WebTransport that opens at once is all that is dialled", async () => {
  const client = connect();
  await net.pass(3000);
  assert.equal(client.transport, "webtransport");
  assert.equal(client.state, "connected");
  assert.deepEqual(net.kinds(), ["webtransport"]);
});

test("with UDP blocked it is live over WebSocket at once, and WebTransport rests before its next try", async () => {
  net.fates.webtransport = "silent";
  const client = connect();
  await net.pass(200);
  assert.equal(client.transport, "websocket");
  // The blocked one is given up, and is not hammered.
  await net.pass(6000);
  assert.deepEqual(net.kinds(), ["webtransport", "websocket"]);
  assert.ok(net.wires[0]?.over);
  await net.pass(FIRST_REST);
  assert.deepEqual(net.kinds(), ["webtransport", "websocket", "webtransport"]);
  await net.pass(FIRST_REST);
  assert.equal(net.wires.length, 3, "the second rest is longer");
  assert.equal(client.transport, "websocket");
});

test("with both refused it is live over long-polling at once", async () => {
  net.fates.webtransport = "refuses";
  net.fates.websocket = "refuses";
  const client = connect();
  await net.pass(50);
  assert.equal(client.transport, "longpoll");
});

test("with both silent it is live over long-polling in two seconds", async () => {
  net.fates.webtransport = "silent";
  net.fates.websocket = "silent";
  const client = connect();
  await net.pass(2100);
  assert.equal(client.transport, "longpoll");
});

test("a slow WebTransport takes over when it is there, and nothing is lost or doubled", async () => {
  net.fates.webtransport = 1000;
  net.overtake = true;
  const client = connect();
  const heard = listen(client);
  const transports: unknown[] = [];
  client.on("transport", (kind) => transports.push(kind));
  for (let n = 1; n <= 150; n++) {
    net.publish("room:a", n);
    await net.pass(10);
    if (n === 1) heard.length = 0;
    if (heard[0] === 1) heard.shift();
  }
  assert.deepEqual(transports, ["websocket", "webtransport"]);
  const first = heard[0] as number;
  assert.deepEqual(heard, upTo(150).slice(first - 1));
  assert.ok(first < 30);
  assert.deepEqual(net.wires.map(({ over }) => over), [false, true]);
});

test("nobody to be had: the back-off grows, and the first that answers is taken", async () => {
  for (const kind of ["webtransport", "websocket", "longpoll"] as const) net.fates[kind] = "refuses";
  const client = connect();
  await net.pass(10);
  assert.equal(client.state, "disconnected");
  await net.pass(20_000);
  const rounds = net.kinds().filter((kind) => kind === "longpoll").length;
  assert.ok(rounds >= 4 && rounds <= 8, `${rounds} rounds in 20 s`);
  net.fates.websocket = "opens";
  await net.pass(20_000);
  assert.equal(client.transport, "websocket");
});

test("a wire can be forced, and is left again", async () => {
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  const used = client.use("longpoll");
  await net.pass(50);
  await used;
  assert.equal(client.transport, "longpoll");
  net.publish("room:a", 1);
  net.fates.websocket = "refuses";
  const refused = assert.rejects(client.use("websocket"), WireError);
  await net.pass(50);
  await refused;
  assert.equal(client.transport, "longpoll", "what works is kept");
  net.publish("room:a", 2);
  void client.use("auto");
  await net.pass(50);
  assert.equal(client.transport, "webtransport");
  net.publish("room:a", 3);
  await net.pass(10);
  assert.deepEqual(heard, [1, 2, 3]);
});

// Losses.

test("a channel whose log was lost goes on over a wire that has nothing late of it", async () => {
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  for (const n of [1, 2, 3]) net.publish("room:a", n);
  net.epoch++;
  net.log.clear();
  net.publish("room:a", "anew");
  await client.channel("room:a").unsubscribe();
  void client.channel("room:a").subscribe({ cursor: { epoch: EPOCH, offset: 3 } });
  await net.pass(1000);
  assert.equal(net.wires.length, 2);
  assert.ok(net.wires[0]?.over);
  net.publish("room:a", "on");
  assert.deepEqual(heard, [1, 2, 3, "1-0", "anew", "on"]);
});

test("a cut wire is replaced: the session goes on, and what was missed comes", async () => {
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  const session = client.session;
  net.publish("room:a", 1);
  net.publish("room:a", 2);
  net.live.ends();
  assert.equal(client.transport, undefined);
  net.publish("room:a", 3);
  await net.pass(1000);
  net.publish("room:a", 4);
  assert.deepEqual(heard, [1, 2, 3, 4]);
  assert.equal(client.session, session);
  const [hello] = net.live.of("connect");
  assert.deepEqual(hello?.subscriptions, [{ channel: "room:a", cursor: { epoch: EPOCH, offset: 2 } }]);
});

test("10,000 messages arrive once and in order over cuts, switches and streams that overtake", async () => {
  net.overtake = true;
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  for (let n = 1; n <= 10_000; n++) {
    net.publish("room:a", n);
    if (n % 1700 === 0) {
      net.live.ends();
      // Much is said before the next wire is there.
    } else if (n % 1700 === 500) await net.pass(600);
    else if (n === 4000) void client.use("websocket");
    else if (n === 4500) await net.pass(100);
    else if (n === 7000) void client.use("auto");
    else if (n === 7500) await net.pass(100);
  }
  await net.pass(2000);
  assert.deepEqual(heard, upTo(10_000));
});

test("publishes without their acknowledgement go again under the same ids and stand once", async () => {
  const client = connect();
  await net.pass(50);
  net.swallow = true;
  const channel = client.channel("room:a");
  const promises = upTo(3).map((n) => channel.publish(n));
  await net.pass(10);
  const before = net.live;
  before.ends();
  net.swallow = false;
  promises.push(channel.publish(4));
  await net.pass(1000);
  assert.deepEqual((await Promise.all(promises)).map(({ offset }) => offset), [1, 2, 3, 4]);
  const ids = (from: typeof before) => from.of("publish").map(({ message_id }) => message_id);
  assert.deepEqual(ids(net.live).slice(0, 3), ids(before));
  assert.equal(net.log.get("room:a")?.length, 4);
  assert.equal(client.unacknowledged, 0);
});

test("a server that was killed is noticed in seconds", async () => {
  const client = connect();
  await net.pass(8000);
  net.live.dead = true;
  for (const kind of ["webtransport", "websocket", "longpoll"] as const) net.fates[kind] = "silent";
  await net.pass(6300);
  assert.equal(client.transport, undefined);
});

test("a quiet wire that answers pings stays, and tells its round trip", async () => {
  const client = connect();
  await net.pass(60_000);
  assert.equal(net.wires.length, 1);
  assert.equal(client.state, "connected");
  assert.ok(client.rtt !== undefined);
});

test("a question goes again over the next wire, a private message does not", async () => {
  const client = connect();
  await net.pass(50);
  net.deaf = "history";
  const history = client.channel("room:a").history();
  await net.pass(10);
  net.deaf = "send";
  const sent = assert.rejects(client.send({ user: "bob" }, 1), WireError);
  await net.pass(10);
  net.live.ends();
  net.deaf = undefined;
  await net.pass(1000);
  assert.deepEqual((await history).publications, []);
  await sent;
});

test("a hole that nothing fills is asked for again", async () => {
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  const { live } = net;
  net.publish("room:a", 1);
  // The stream that carried it was reset.
  live.subscriptions.delete("room:a");
  net.publish("room:a", 2);
  live.subscriptions.add("room:a");
  net.publish("room:a", 3);
  await net.pass(1000);
  assert.deepEqual(heard, [1]);
  await net.pass(3000);
  assert.deepEqual(heard, [1, 2, 3]);
  assert.equal(net.wires.length, 1);
});

// What the server says.

test("a node that drains is left when it says so, for a new connection beside the old", async () => {
  const client = connect();
  const heard = listen(client);
  const states: string[] = [];
  client.on("state", (state) => states.push(state));
  await net.pass(50);
  const old = net.live;
  old.frame({ draining: { reconnect_in: 500, close_in: 5000 } });
  await net.pass(400);
  assert.equal(net.wires.length, 1);
  net.publish("room:a", 1);
  await net.pass(300);
  assert.notEqual(net.live, old);
  net.publish("room:a", 2);
  assert.deepEqual(heard, [1, 2]);
  assert.deepEqual(states, ["connected"]);
});

test("a server that allows no return is not returned to", async () => {
  const client = connect();
  await net.pass(50);
  const errors: Error[] = [];
  client.on("error", (error) => errors.push(error));
  net.deaf = "publish";
  const published = assert.rejects(client.channel("room:a").publish(1), ClosedError);
  net.live.ends(4500);
  await published;
  await net.pass(60_000);
  assert.equal(client.state, "closed");
  assert.equal(net.wires.length, 1);
  assert.ok(errors.some((error) => error instanceof ClosedError && error.closeCode === 4500));
  await assert.rejects(client.channel("room:a").publish(2), ClosedError);
});

test("a token that is refused is replaced, if it can be", async () => {
  const tokens = ["old", "new"];
  net.refusal = { code: "token_expired", message: "expired", retry: false };
  const client = connect({ getToken: () => tokens.shift()! });
  await net.pass(1000);
  assert.equal(client.state, "connected");
  assert.equal(net.live.of("connect")[0]?.token, "new");
  net.refusal = { code: "invalid_token", message: "forged", retry: false };
  const other = connect({ token: "forged" });
  await net.pass(1000);
  assert.equal(other.state, "closed");
});

test("a state that is not taken any more begins a new session with the same cursors", async () => {
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  net.publish("room:a", 1);
  const session = client.session;
  net.refusal = { code: "invalid_state", message: "another key", retry: false };
  net.live.ends();
  net.publish("room:a", 2);
  await net.pass(2000);
  assert.notEqual(client.session, session);
  assert.deepEqual(heard, [1, 2]);
});

test("a session that another node took over by itself loses and doubles nothing", async () => {
  const client = connect({ transports: ["longpoll"] });
  const heard = listen(client);
  await net.pass(50);
  net.publish("room:a", 1);
  const { live } = net;
  net.deaf = "publish";
  const published = client.channel("room:a").publish(3);
  await net.pass(10);
  net.deaf = undefined;
  net.publish("room:a", 2);
  const limits = { frame: 1000, in_flight: 100, subscriptions: 100 };
  const connected = { id: 0, session: "another", state: "new", node: "m", ping_interval: 15_000, limits };
  live.frame({ connected });
  live.frame({ subscribed: { id: 0, channel: "room:a", cursor: { epoch: EPOCH, offset: 0 }, top: 2 } });
  for (const publication of net.log.get("room:a")!) live.frame({ publication });
  await net.pass(10);
  assert.equal((await published).offset, 3);
  assert.deepEqual(heard, [1, 2, 3]);
  assert.equal(client.node, "m");
});

test("a token is refreshed at four fifths of its life", async () => {
  net.expiresIn = 100;
  let count = 0;
  connect({ getToken: () => `token${++count}` });
  await net.pass(79_000);
  assert.equal(count, 1);
  await net.pass(2_000);
  assert.deepEqual(net.live.of("refresh").map(({ token }) => token), ["token2"]);
  await net.pass(80_000);
  assert.equal(count, 3);
});

test("rights that expired come back with a new token, and nothing is missed", async () => {
  const client = connect({ getToken: () => "token" });
  const heard = listen(client);
  await net.pass(50);
  net.publish("room:a", 1);
  const { live } = net;
  live.subscriptions.delete("room:a");
  live.frame({ unsubscribed: { channel: "room:a", reason: "token_expired" } });
  live.frame({ expired: {} });
  net.publish("room:a", 2);
  await net.pass(50);
  assert.deepEqual(heard, [1, 2]);
  assert.equal(client.channel("room:a").subscribed, true);
});

test("a revoked subscription ends, one that the log could not serve comes back", async () => {
  const client = connect();
  const [revoked, unlucky] = [client.channel("room:a"), client.channel("room:b")];
  await Promise.all([revoked.subscribe(), unlucky.subscribe(), net.pass(50)]);
  const reasons: string[] = [];
  revoked.on("unsubscribed", ({ reason }) => reasons.push(reason));
  net.live.frame({ unsubscribed: { channel: "room:a", reason: "revoked" } });
  net.live.frame({ unsubscribed: { channel: "room:b", reason: "log_unavailable" } });
  await net.pass(1000);
  assert.deepEqual(reasons, ["revoked"]);
  assert.deepEqual([revoked.subscribed, unlucky.subscribed], [false, true]);
});

test("a subscription that is refused rejects, and is not asked for again", async () => {
  const client = connect();
  await net.pass(50);
  net.deaf = "subscribe";
  const channel = client.channel("secret:a");
  const refused = assert.rejects(channel.subscribe(), (error) => error instanceof CommandError && !error.retry);
  await net.pass(10);
  const id = net.live.of("subscribe")[0]!.id;
  net.live.frame({ error: { id, code: "permission_denied", message: "no", channel: "secret:a", retry: false } });
  await refused;
  net.live.ends();
  await net.pass(1000);
  assert.deepEqual(net.live.of("connect")[0]?.subscriptions, []);
});

test("the last publications come with a subscription that asks for them", async () => {
  for (const n of upTo(5)) net.publish("room:a", n);
  const client = connect();
  const heard: unknown[] = [];
  client.channel("room:a").on("publication", ({ data }) => heard.push(data));
  void client.channel("room:a").subscribe({ last: 2 });
  await net.pass(50);
  assert.deepEqual(heard, [4, 5]);
  net.live.ends();
  await net.pass(1000);
  assert.deepEqual(heard, [4, 5]);
});

test("unsubscribed means unsubscribed, on the next wire too", async () => {
  const client = connect();
  const heard = listen(client);
  await net.pass(50);
  void client.channel("room:a").unsubscribe();
  net.publish("room:a", 1);
  await net.pass(10);
  net.live.ends();
  await net.pass(1000);
  net.publish("room:a", 2);
  assert.deepEqual(heard, []);
  assert.deepEqual([...net.live.subscriptions].filter((name) => name.startsWith("room:")), []);
});

test("what the server resumes by itself and nobody wants is left again", async () => {
  const client = connect();
  listen(client);
  await net.pass(50);
  void client.channel("room:a").unsubscribe();
  await net.pass(10);
  net.live.ends();
  await net.pass(1000);
  const { id } = net.live.of("connect")[0]!;
  net.live.frame({ subscribed: { id, channel: "room:a", cursor: { epoch: EPOCH, offset: 0 }, top: 0 } });
  await net.pass(10);
  assert.deepEqual(net.live.of("unsubscribe").map(({ channel }) => channel), ["room:a"]);
});

test("a frame that is too large is refused here, and the wire lives on", async () => {
  const client = connect();
  await net.pass(50);
  const code = (error: unknown) => error instanceof CommandError && error.code === "too_large";
  await assert.rejects(client.channel("room:a").publish("x".repeat(2000)), code);
  await assert.rejects(client.channel("room:a").publish("ü".repeat(500)), code);
  const published = client.channel("room:a").publish("small");
  await net.pass(10);
  assert.equal((await published).offset, 1);
});

test("what is worth nothing later goes as a datagram, and nowhere without a wire", async () => {
  const client = connect();
  client.channel("typing:a").cast({ early: true });
  await net.pass(50);
  client.channel("typing:a").cast({ name: "Ada" }, { event: "typing" });
  assert.deepEqual(net.live.lossy, [
    { publish: { id: 0, channel: "typing:a", event: "typing", data: { name: "Ada" } } },
  ]);
});

test("signals and receipts come by name, and a signal goes nowhere without a wire", async () => {
  const client = connect();
  const channel = client.channel("room:a");
  channel.signal("typing");
  await Promise.all([channel.subscribe(), net.pass(50)]);
  const heard: unknown[] = [];
  channel.on("signal", ({ event, user, data }) => heard.push([event, user, data]));
  channel.on("receipt", ({ user, read }) => heard.push([user, read]));
  channel.signal("typing");
  channel.signal("pointer", { x: 1 });
  await net.pass(10);
  assert.deepEqual(net.live.of("signal"), [
    { id: 0, channel: "room:a", event: "typing" },
    { id: 0, channel: "room:a", event: "pointer", data: { x: 1 } },
  ]);
  net.live.frame({ signal: { channel: "room:a", event: "typing", session: "s", user: "bob" } });
  net.live.frame({ receipt: { channel: "room:a", user: "bob", read: 3 } });
  assert.deepEqual(heard, [["typing", "bob", undefined], ["bob", 3]]);
});

test("a cursor that was marked when the wire broke is marked over the next", async () => {
  const client = connect();
  await net.pass(50);
  net.deaf = "read";
  const marked = client.channel("room:a").markRead(7);
  await net.pass(10);
  net.deaf = undefined;
  net.live.ends();
  await net.pass(1000);
  await marked;
  assert.deepEqual(net.live.of("read").map(({ channel, offset }) => [channel, offset]), [["room:a", 7]]);
  await Promise.all([client.channel("room:b").markReceived(9), net.pass(10)]);
  assert.deepEqual(net.live.of("received").map(({ channel, offset }) => [channel, offset]), [["room:b", 9]]);
});

test("a message says what it answers, whom it names and when it is over", async () => {
  const client = connect();
  await net.pass(50);
  const options = { messageId: "m", replyTo: 3, mentions: ["bob"], expiresIn: 1_000 };
  await Promise.all([client.channel("room:a").publish(1, options), client.channel("room:a").publish(2), net.pass(10)]);
  const [first, second] = net.live.of("publish");
  assert.deepEqual([first?.message_id, first?.reply_to, first?.mentions, first?.expires_in], ["m", 3, ["bob"], 1_000]);
  assert.deepEqual([second?.reply_to, second?.mentions, second?.expires_in], [undefined, undefined, undefined]);
});

test("a client that is thrown out knows why", async () => {
  for (const [closeCode, code] of [
    [4504, "revoked"],
    [4505, "signed_in_elsewhere"],
    [4503, "closed"],
  ] as const) {
    const client = connect();
    await net.pass(50);
    const errors: Error[] = [];
    client.on("error", (error) => errors.push(error));
    net.live.ends(closeCode);
    await net.pass(50);
    assert.deepEqual(errors.map((error) => (error as ClosedError).code), [code]);
    assert.equal(client.state, "closed");
  }
});

test("a page that comes into sight or online looks at once whether its wire stands", async (t) => {
  const page = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const globals: Record<string, unknown> = { document: page, navigator: {}, addEventListener: () => {}, removeEventListener: () => {} };
  for (const [name, value] of Object.entries(globals)) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : Reflect.deleteProperty(globalThis, name)));
  }
  const client = connect();
  await net.pass(1000);
  const pings = net.live.of("ping").length;
  page.dispatchEvent(new Event("visibilitychange"));
  assert.equal(net.live.of("ping").length, pings + 1);
  // Out of sight, it asks less often and is as patient.
  page.visibilityState = "hidden";
  await net.pass(60_000);
  const often = net.live.of("ping").length - pings;
  assert.ok(often < 12, `${often} pings in a minute`);
  assert.equal(net.wires.length, 1);
  for (const kind of ["webtransport", "websocket", "longpoll"] as const) net.fates[kind] = "refuses";
  net.live.ends();
  await net.pass(30_000);
  net.fates.webtransport = "opens";
  assert.equal(client.state, "disconnected");
  page.visibilityState = "visible";
  page.dispatchEvent(new Event("visibilitychange"));
  await net.pass(10);
  assert.equal(client.state, "connected");
  // Closed, it listens no more.
  client.close();
  page.dispatchEvent(new Event("visibilitychange"));
  await net.pass(1000);
  assert.equal(client.state, "closed");
});

test("a queue without a server is bounded", async () => {
  for (const kind of ["webtransport", "websocket", "longpoll"] as const) net.fates[kind] = "refuses";
  const client = connect({ queueCapacity: 2 });
  const waiting = [1, 2].map((n) => assert.rejects(client.channel("room:a").publish(n), ClosedError));
  await assert.rejects(client.channel("room:a").publish(3), { name: "QueueFullError" });
  client.close();
  await Promise.all(waiting);
});

test("what JSON can't say is refused at once", async () => {
  const client = connect();
  await assert.rejects(client.channel("room:a").publish(undefined), TypeError);
  await assert.rejects(client.send({ user: "bob" }, () => 1), TypeError);
});

test("a listener that throws disturbs nobody", async () => {
  const client = connect();
  client.channel("room:a").on("publication", () => {
    throw new RangeError("the application's");
  });
  const heard = listen(client);
  await net.pass(50);
  net.publish("room:a", 1);
  assert.deepEqual(heard, [1]);
  // It is reported, as the platform does it for its own events.
  await assert.rejects(net.pass(10), RangeError);
});
