import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../src/backoff.js";
import type { Address } from "../src/directory.js";
import { betterThan, planRace } from "../src/race-plan.js";
import { FIRST_REST, WireMemory } from "../src/wire-memory.js";
import { WIRE_KINDS } from "../src/wires/wire.js";

const addresses: Address[] = WIRE_KINDS.map((kind) => ({ kind, url: `https://x/${kind}`, hashes: [] }));

/** A page's storage that can be read again by another page. */
function store() {
  const items = new Map<string, string>();
  return { getItem: (key: string) => items.get(key) ?? null, setItem: (key: string, value: string) => void items.set(key, value) };
}

const plan = (memory: WireMemory) => planRace(addresses, memory).map(({ address, delay }) => [address.kind, delay]);

test("WebTransport has a head start, and long-polling comes last", () => {
  assert.deepEqual(plan(new WireMemory("https://x", store())), [
    ["webtransport", 0],
    ["websocket", 150],
    ["longpoll", 2000],
  ]);
});

test("a wire that failed here rests, longer each time, beyond a reload", () => {
  let now = 1_000_000;
  const shared = store();
  const memory = new WireMemory("https://x", shared, () => now);
  memory.failed("webtransport");
  memory.won("websocket");
  const reloaded = new WireMemory("https://x", shared, () => now);
  assert.equal(reloaded.winner, "websocket");
  assert.deepEqual(plan(reloaded), [
    ["websocket", 0],
    ["longpoll", 2000],
  ]);
  now += FIRST_REST;
  assert.deepEqual(plan(reloaded), [
    ["websocket", 0],
    ["webtransport", 150],
    ["longpoll", 2000],
  ]);
  reloaded.failed("webtransport");
  assert.equal(reloaded.restsUntil("webtransport"), now + 2 * FIRST_REST);
  reloaded.won("webtransport");
  assert.equal(reloaded.restsUntil("webtransport"), 0);
  assert.equal(new WireMemory("https://other", shared).winner, undefined);
});

test("who rests is the last resort, and WebTransport not even that", () => {
  const memory = new WireMemory("https://x", store());
  memory.failed("websocket");
  memory.failed("webtransport");
  assert.deepEqual(plan(memory), [
    ["longpoll", 0],
    ["websocket", Infinity],
  ]);
  const alone = planRace(addresses.slice(0, 1), memory);
  assert.deepEqual(alone.map(({ address, delay }) => [address.kind, delay]), [["webtransport", 0]]);
});

test("storage that is broken or full does no harm", () => {
  const broken = {
    getItem: () => "{",
    setItem: () => {
      throw new Error("full");
    },
  };
  const memory = new WireMemory("https://x", broken);
  memory.won("longpoll");
  assert.equal(memory.winner, "longpoll");
});

test("better is what the server names first", () => {
  assert.deepEqual(betterThan("longpoll", addresses).map(({ kind }) => kind), ["webtransport", "websocket"]);
  assert.deepEqual(betterThan("webtransport", addresses), []);
});

test("the back-off is jittered in full and bounded", () => {
  const highest = new Backoff(500, 20_000, () => 1);
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7].map(() => highest.next()), [500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
  highest.reset();
  assert.equal(highest.next(), 500);
  assert.equal(new Backoff(500, 20_000, () => 0).next(), 0);
});
