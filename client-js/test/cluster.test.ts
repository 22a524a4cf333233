import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Client } from "../src/client.js";
import { PATIENCE } from "../src/directory.js";
import { CommandError } from "../src/errors/command-error.js";
import type { ClientOptions } from "../src/options.js";
import { FakeNet } from "./fake-net.js";

let net: FakeNet;
let clients: Client[];

beforeEach(() => {
  net = new FakeNet();
  net.assigned = "n1";
  net.nodes = ["https://n1", "https://n2", "https://n3"];
  clients = [];
});

afterEach(() => {
  for (const client of clients) client.close();
  net.restore();
});

function connect(options: ClientOptions = {}): Client {
  const client = new Client("https://x", { ...net.options, token: "a.b.c", ...options });
  clients.push(client);
  return client;
}

/** Hosts that were asked since the last look. */
function asked(): string[] {
  return net.asked.splice(0).map((url) => url.split("/")[0]!);
}

test("a ticket leads to its node, and is shown there in the place of the token", async () => {
  const client = connect();
  await net.pass(50);
  assert.deepEqual(net.ticketRequests, [{ token: "a.b.c" }]);
  assert.equal(client.node, "n1");
  const [hello] = net.live.of("connect");
  assert.equal(hello?.ticket, "ticket1");
  assert.equal(hello?.token, undefined);
});

test("who has no token asks without one", async () => {
  const client = new Client("https://x", net.options);
  clients.push(client);
  await net.pass(50);
  assert.deepEqual(net.ticketRequests, [{}]);
  assert.equal(net.live.of("connect")[0]?.ticket, "ticket1");
});

test("a server that gives no tickets tells its wires, and is not asked for a ticket again", async () => {
  net.assigned = undefined;
  const client = connect();
  await net.pass(50);
  assert.deepEqual(net.asked, ["x/v1/tickets", "x/v1/transports"]);
  const [hello] = net.live.of("connect");
  assert.deepEqual([hello?.token, hello?.ticket, client.node], ["a.b.c", undefined, "x"]);
  net.live.ends();
  await net.pass(1000);
  assert.equal(client.state, "connected");
  assert.deepEqual(net.asked, ["x/v1/tickets", "x/v1/transports", "x/v1/transports"]);
});

test("a lost node is left at once, with a new ticket and the same session", async () => {
  const client = connect();
  const heard: unknown[] = [];
  client.channel("room:a").on("publication", ({ data }) => heard.push(data));
  void client.channel("room:a").subscribe();
  await net.pass(50);
  const { session } = client;
  net.publish("room:a", 1);
  net.down.add("n1");
  net.assigned = "n2";
  net.live.ends();
  net.publish("room:a", 2);
  await net.pass(200);
  assert.equal(client.node, "n2");
  assert.equal(client.session, session);
  assert.equal(net.live.of("connect")[0]?.ticket, "ticket2");
  assert.deepEqual(heard, [1, 2]);
});

test("servers that are gone are passed over, and who answered is asked first the next time", async () => {
  const client = connect();
  await net.pass(50);
  assert.deepEqual(asked(), ["x"]);
  for (const host of ["x", "n1"]) net.http.set(host, "refuses");
  net.http.set("n2", 503);
  net.assigned = "n3";
  net.live.ends();
  await net.pass(200);
  assert.equal(client.node, "n3");
  const round = asked();
  assert.deepEqual([round[0], round[round.length - 1]], ["x", "n3"]);
  net.assigned = "n2";
  net.live.ends();
  await net.pass(200);
  assert.equal(client.node, "n2");
  assert.deepEqual(asked(), ["n3"]);
});

test("a server that says nothing costs a second, once", async () => {
  const client = connect();
  await net.pass(50);
  net.http.set("x", "silent");
  net.assigned = "n2";
  net.live.ends();
  await net.pass(PATIENCE);
  assert.equal(client.state, "connecting");
  await net.pass(200);
  assert.equal(client.node, "n2");
  net.live.ends();
  await net.pass(200);
  assert.equal(client.state, "connected");
});

test("nobody answers: what was known is tried, with the token once the ticket is old", async () => {
  const client = connect();
  await net.pass(50);
  await net.pass(61_000);
  for (const host of ["x", "n1", "n2", "n3"]) net.http.set(host, "refuses");
  net.live.ends();
  await net.pass(500);
  assert.equal(client.node, "n1");
  const [hello] = net.live.of("connect");
  assert.deepEqual([hello?.token, hello?.ticket], ["a.b.c", undefined]);
});

test("a node that is dead, as not all know yet, is said to be avoided", async () => {
  net.down.add("n1");
  const client = connect();
  await net.pass(200);
  assert.equal(client.node, "n2");
  // Lost, it is not gone back to. Once there is a live one, nothing is avoided.
  net.assigned = "n2";
  net.second = "n3";
  net.live.ends();
  await net.pass(200);
  assert.equal(client.node, "n3");
  assert.deepEqual(net.ticketRequests.map(({ avoid }) => avoid), [undefined, "n1", "n2"]);
  net.live.frame({ draining: { reconnect_in: 0, close_in: 5000 } });
  await net.pass(200);
  assert.equal(net.ticketRequests.at(-1)?.avoid, "n3");
});

test("a node that drains is left for another one, and nothing is missed in between", async () => {
  const client = connect();
  const heard: unknown[] = [];
  client.channel("room:a").on("publication", ({ data }) => heard.push(data));
  void client.channel("room:a").subscribe();
  await net.pass(50);
  const states: string[] = [];
  client.on("state", (state) => states.push(state));
  const old = net.live;
  net.assigned = "n2";
  old.frame({ draining: { reconnect_in: 300, close_in: 5000 } });
  net.publish("room:a", 1);
  await net.pass(290);
  assert.equal(net.wires.length, 1);
  await net.pass(100);
  net.publish("room:a", 2);
  assert.deepEqual([client.node, old.over], ["n2", true]);
  assert.deepEqual(heard, [1, 2]);
  assert.deepEqual(states, []);
});

test("a node that drains during a try for a better wire is left all the same", async () => {
  net.fates.webtransport = "silent";
  const client = connect();
  await net.pass(300);
  assert.deepEqual([client.node, client.transport], ["n1", "websocket"]);
  net.assigned = "n2";
  net.live.frame({ draining: { reconnect_in: 300, close_in: 20_000 } });
  // The silent wire's time is not up yet.
  await net.pass(1000);
  assert.equal(client.node, "n2");
});

test("a ticket that is refused is not shown again: the token is", async () => {
  net.refusal = { code: "invalid_token", message: "the ticket has expired", retry: false };
  const client = connect();
  await net.pass(500);
  assert.equal(client.state, "connected");
  const hellos = net.wires.flatMap((wire) => wire.of("connect"));
  assert.deepEqual(hellos.map(({ ticket, token }) => ticket ?? token), ["ticket1", "a.b.c"]);
});

test("a token that gets no ticket is renewed", async () => {
  const tokens = ["old", "new"];
  net.http.set("x", 401);
  const client = connect({ token: tokens[0]!, getToken: () => (net.http.delete("x"), tokens[1]!) });
  await net.pass(500);
  assert.equal(client.state, "connected");
  assert.deepEqual(net.ticketRequests, [{ token: "new" }]);
});

test("a token that gets no ticket and can't be renewed ends the client", async () => {
  net.http.set("x", 401);
  const errors: Error[] = [];
  const client = connect();
  client.on("error", (error) => errors.push(error));
  await net.pass(500);
  assert.equal(client.state, "closed");
  assert.equal(errors[0]?.message, "the client is closed:  (4502)");
  await assert.rejects(client.channel("room:a").publish(1), { name: "ClosedError" });
  assert.ok(errors.every((error) => !(error instanceof CommandError)));
});
