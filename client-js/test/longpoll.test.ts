import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Client } from "../src/client.js";
import type { Publication } from "../src/message.js";
import { TinyServer } from "./tiny-server.js";

let server: TinyServer;
let url: string;
const clients: Client[] = [];

beforeEach(async () => {
  server = new TinyServer();
  url = await server.start();
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await server.stop();
});

function connect(): Client {
  const client = new Client(url, { random: () => 0.1 });
  clients.push(client);
  return client;
}

test("two clients talk over long-polling", async () => {
  const [ada, bob] = [connect(), connect()];
  const heard: Publication[] = [];
  bob.channel("room:a").on("publication", (publication) => heard.push(publication));
  await bob.channel("room:a").subscribe();
  const cursors = await Promise.all([1, 2, 3].map((n) => ada.channel("room:a").publish({ n })));
  assert.deepEqual(cursors.map(({ offset }) => offset), [1, 2, 3]);
  const last = await ada.channel("room:a").publish(new Uint8Array([1, 2]), { event: "bytes" });
  assert.equal(last.offset, 4);
  await bob.channel("room:a").history();
  assert.deepEqual(heard.map(({ offset }) => offset), [1, 2, 3, 4]);
  assert.deepEqual(heard[3]?.binary, new Uint8Array([1, 2]));
  assert.equal(heard[3]?.event, "bytes");
  assert.equal(ada.transport, "longpoll");
  assert.ok(ada.rtt !== undefined);
});

test("history pages, presence, private messages", async () => {
  const [ada, bob] = [connect(), connect()];
  for (let n = 1; n <= 5; n++) await ada.channel("room:a").publish(n);
  const first = await ada.channel("room:a").history({ backward: true, limit: 3 });
  assert.deepEqual(first.publications.map(({ data }) => data), [5, 4, 3]);
  const second = await ada.channel("room:a").history({ backward: true, limit: 3, cursor: first.next! });
  assert.deepEqual(second.publications.map(({ data }) => data), [2, 1]);
  assert.equal(second.next, undefined);
  await bob.channel("room:a").subscribe();
  const { members } = await ada.channel("room:a").presence();
  assert.deepEqual(members.map(({ session }) => session), [bob.session]);
  const message = new Promise<unknown>((resolve) => bob.on("message", ({ data }) => resolve(data)));
  assert.equal(await ada.send({ session: bob.session! }, { hello: true }), 1);
  assert.deepEqual(await message, { hello: true });
});

test("a request that was cut comes again, and each message stands once and in order", async () => {
  const ada = connect();
  const room = ada.channel("room:a");
  const heard: unknown[] = [];
  room.on("publication", ({ data }) => heard.push(data));
  await room.subscribe();
  for (let n = 1; n <= 30; n++) {
    if (n % 5 === 0) server.cuts = n % 10 === 0 ? 3 : 1;
    await room.publish(n);
  }
  await room.history();
  assert.deepEqual(heard, Array.from({ length: 30 }, (_, i) => i + 1));
});

test("what is more than one request holds goes in several, in order", async () => {
  const ada = connect();
  const offsets = await Promise.all(Array.from({ length: 300 }, (_, n) => ada.channel("room:a").publish({ n, pad: "x".repeat(n % 7 === 0 ? 3000 : 10) })));
  assert.deepEqual(offsets.map(({ offset }) => offset), Array.from({ length: 300 }, (_, i) => i + 1));
  assert.ok(server.requests.every(({ frames }) => (frames ?? []).length <= 64));
  const polls = server.requests.filter(({ state, send }) => state !== undefined && !send);
  assert.ok(polls.every(({ frames }) => frames?.length === 0), "nothing could overtake");
});

test("a loop over a channel subscribes, reads and leaves", async () => {
  const ada = connect();
  const room = ada.channel("room:a");
  const read: unknown[] = [];
  room.once("subscribed", () => [1, 2, 3].forEach((n) => void room.publish(n)));
  for await (const { data } of room) {
    read.push(data);
    if (read.length === 3) break;
  }
  assert.deepEqual(read, [1, 2, 3]);
  assert.equal(room.subscribed, false);
});

test("a server that is away is waited for", async () => {
  const ada = connect();
  const states: string[] = [];
  ada.on("state", (state) => states.push(state));
  await ada.channel("room:a").subscribe();
  const port = new URL(url).port;
  await server.stop();
  const published = ada.channel("room:a").publish("kept");
  await new Promise<void>((resolve) => ada.on("state", (state) => state === "disconnected" && resolve()));
  server = new TinyServer();
  await server.start(Number(port));
  assert.equal((await published).offset, 1);
  assert.equal(ada.state, "connected");
  assert.ok(states.includes("disconnected"));
});
