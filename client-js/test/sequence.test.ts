import assert from "node:assert/strict";
import { test } from "node:test";
import type { Publication } from "../src/message.js";
import { HOLD_CAPACITY, Sequence } from "../src/sequence.js";
import type * as wire from "../src/wire.js";
import type { Lane } from "../src/wires/wire.js";

const channel = "room:a";

function publication(offset: number): Publication {
  return { channel, offset, message_id: `m${offset}`, event: "message", data: offset, time: 0 };
}

/** A sequence, and what came out of it: offsets, and gaps as `from-to`. */
function sequence() {
  const out: (number | string)[] = [];
  let overflows = 0;
  const sequence = new Sequence(channel, {
    publication: ({ offset }) => out.push(offset),
    lost: ({ from, to }: wire.Gap) => out.push(`${from}-${to}`),
    overflow: () => overflows++,
  });
  return {
    sequence,
    out,
    overflows: () => overflows,
    take: (lane: Lane, ...offsets: number[]) => offsets.forEach((offset) => sequence.take(publication(offset), lane)),
    gap: (from: number, to: number, epoch = 1, lane: Lane = "stream") => sequence.gap({ channel, epoch, from, to }, lane),
  };
}

test("what comes before the answer to subscribe waits for it", () => {
  const { sequence: s, out, take } = sequence();
  take("stream", 7, 6, 3);
  s.start({ epoch: 1, offset: 4 }, undefined);
  assert.deepEqual(out, []);
  take("stream", 5);
  assert.deepEqual(out, [5, 6, 7]);
  assert.deepEqual(s.cursor, { epoch: 1, offset: 7 });
});

test("what overtook on another stream is held until the hole is filled", () => {
  const { sequence: s, out, take } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  take("stream", 3, 2, 3, 1, 1, 2, 5, 4);
  assert.deepEqual(out, [1, 2, 3, 4, 5]);
  assert.equal(s.holding, false);
});

test("any order of two streams comes out once and in order", () => {
  for (let round = 0; round < 200; round++) {
    const { sequence: s, out, take } = sequence();
    s.start({ epoch: 1, offset: 0 }, undefined);
    const all = Array.from({ length: 60 }, (_, i) => i + 1);
    // Each stream keeps its own order, and they repeat some of each other's.
    const live = all.filter((n) => n > 20 || n % 3 === 0);
    const backfill = all.filter((n) => n <= 40);
    while (live.length + backfill.length > 0) {
      const from = backfill.length === 0 || (live.length > 0 && Math.random() < 0.5) ? live : backfill;
      take("stream", from.shift()!);
    }
    assert.deepEqual(out, all);
  }
});

test("a hole on a wire of one stream is a gap", () => {
  const { sequence: s, out, take } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  take("ordered", 1, 2, 5, 3, 6);
  assert.deepEqual(out, [1, 2, "3-4", 5, 6]);
});

test("a hole in datagrams is passed over at once, and nobody is told", () => {
  const { sequence: s, out, take } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  take("datagram", 2, 1, 5);
  // Too long for a datagram, it came on a stream; the one before it was lost.
  take("stream", 7);
  assert.deepEqual(out, [2, 5, 7]);
});

test("where nothing is kept, holes are nobody's worry on any wire", () => {
  const { sequence: s, out, take } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined, true);
  take("ordered", 2);
  take("stream", 5, 4);
  assert.deepEqual(out, [2, 5]);
});

test("an early gap waits for what is before it", () => {
  const { sequence: s, out, take, gap } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  take("stream", 1);
  gap(3, 9);
  assert.deepEqual(out, [1]);
  take("stream", 10, 2);
  assert.deepEqual(out, [1, 2, "3-9", 10]);
  gap(4, 8);
  assert.deepEqual(out, [1, 2, "3-9", 10]);
});

test("a gap of another epoch begins anew", () => {
  const { sequence: s, out, take, gap } = sequence();
  s.start({ epoch: 1, offset: 4 }, undefined);
  take("stream", 5, 8);
  gap(1, 0, 2);
  take("stream", 1, 2);
  assert.deepEqual(out, [5, "1-0", 1, 2]);
  assert.deepEqual(s.cursor, { epoch: 2, offset: 2 });
});

test("a resumed subscription repeats nothing and says what is lost", () => {
  const { sequence: s, out, take } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  take("stream", 1, 2, 3);
  s.suspend();
  take("stream", 3, 4);
  s.start({ epoch: 1, offset: 2 }, undefined);
  assert.deepEqual(out, [1, 2, 3, 4]);
  s.suspend();
  s.start({ epoch: 1, offset: 9 }, { channel, epoch: 1, from: 5, to: 9 });
  take("stream", 10);
  assert.deepEqual(out, [1, 2, 3, 4, "5-9", 10]);
  s.suspend();
  // Another epoch, and a server that forgot to say so: never silence.
  s.start({ epoch: 2, offset: 3 }, undefined);
  assert.deepEqual(out.slice(-1), ["1-3"]);
});

test("what is held is bounded", () => {
  const { sequence: s, out, take, overflows } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  for (let offset = 2; offset < HOLD_CAPACITY + 2; offset++) take("stream", offset);
  assert.equal(overflows(), 0);
  take("stream", HOLD_CAPACITY + 2);
  assert.equal(overflows(), 1);
  assert.deepEqual(out, []);
});
