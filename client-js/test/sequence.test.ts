import assert from "node:assert/strict";
import { test } from "node:test";
import type { Publication } from "../src/message.js";
import { HOLD_CAPACITY, Sequence } from "../src/sequence.js";
import type * as wire from "../src/wire.js";
import type { Lane } from "../src/wires/wire.js";

const channel = "room:a";

function publication(offset: number, epoch?: number): Publication {
  const told = epoch === undefined ? {} : { epoch };
  return { channel, offset, ...told, message_id: `m${offset}`, event: "message", data: offset, time: 0 };
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
    of: (epoch: number, lane: Lane, ...offsets: number[]) =>
      offsets.forEach((offset) => sequence.take(publication(offset, epoch), lane)),
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
  const { sequence: s, out, take, of, gap } = sequence();
  s.start({ epoch: 1, offset: 4 }, undefined);
  take("stream", 5, 8);
  gap(1, 0, 2);
  of(2, "stream", 1, 2);
  assert.deepEqual(out, [5, "1-0", 1, 2]);
  assert.deepEqual(s.cursor, { epoch: 2, offset: 2 });
});

test("a new epoch that overtakes its gap waits for it", () => {
  const { sequence: s, out, take, of, gap } = sequence();
  s.start({ epoch: 1, offset: 500 }, undefined);
  of(2, "stream", 3);
  take("stream", 501);
  of(2, "stream", 4);
  assert.deepEqual(out, [501]);
  assert.equal(s.holding, true);
  gap(1, 1, 2);
  assert.deepEqual(out, [501, "1-1"]);
  of(2, "stream", 2);
  assert.deepEqual(out, [501, "1-1", 2, 3, 4]);
  assert.equal(s.holding, false);
});

test("what is late of an old epoch is no news, whether it says its epoch or not", () => {
  const { sequence: s, out, take, of, gap, overflows } = sequence();
  s.start({ epoch: 1, offset: 3 }, undefined);
  take("stream", 5);
  gap(1, 3, 2);
  take("stream", 4, 5);
  of(1, "stream", 4);
  of(2, "stream", 4);
  assert.deepEqual(out, ["1-3", 4]);
  // An epoch does not come back: the log is asked what is true.
  gap(1, 9, 1);
  assert.equal(overflows(), 1);
});

test("a new epoch may come before the answer to subscribe, and the answer may name it", () => {
  const { sequence: s, out, take, of } = sequence();
  s.start({ epoch: 1, offset: 3 }, undefined);
  s.suspend();
  of(2, "stream", 2, 3);
  take("stream", 4);
  s.start({ epoch: 2, offset: 1 }, { channel, epoch: 2, from: 1, to: 1 });
  assert.deepEqual(out, ["1-1", 2, 3, 4]);
});

test("on a wire of one stream a new epoch without its gap is a gap", () => {
  const { sequence: s, out, take, of } = sequence();
  s.start({ epoch: 1, offset: 0 }, undefined);
  take("ordered", 1);
  of(2, "ordered", 3, 4);
  assert.deepEqual(out, [1, "1-2", 3, 4]);
});

test("where nothing is kept, a new epoch begins by itself", () => {
  const { sequence: s, out, take, of } = sequence();
  s.start({ epoch: 1, offset: 7 }, undefined, true);
  of(2, "datagram", 2);
  take("datagram", 8);
  of(2, "datagram", 4);
  assert.deepEqual(out, [2, 4]);
});

test("however the streams interleave over changes of the epoch, each comes once and in order, or a gap does", () => {
  const below = (n: number): number => Math.floor(Math.random() * n);
  for (let round = 0; round < 2000; round++) {
    let at = { epoch: 0, offset: 0 };
    const s = new Sequence(channel, {
      publication: ({ epoch = 0, offset }) => {
        assert.deepEqual([epoch, offset], [at.epoch, at.offset + 1]);
        at.offset = offset;
      },
      lost: ({ epoch, to }) => (at = { epoch, offset: to }),
      overflow: () => assert.fail("nothing overflows"),
    });
    const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i + 1);
    // Control, live, and from the log: each keeps its own order.
    const streams: (() => void)[][] = [[() => s.start({ epoch: 0, offset: 0 }, undefined)], [], []];
    let top = { epoch: 0, offset: below(6) };
    for (const offset of range(0, top.offset)) streams[1]!.push(() => s.take(publication(offset), "stream"));
    for (let epoch = 1; epoch <= round % 4; epoch++) {
      const lost = below(4);
      const read = lost + below(4);
      top = { epoch, offset: read + below(4) };
      streams[2]!.push(() => s.gap({ channel, epoch, from: 1, to: lost }, "stream"));
      const take = (offset: number) => () => s.take(publication(offset, epoch), "stream");
      streams[2]!.push(...range(lost, read).map(take));
      streams[1]!.push(...range(read, top.offset).map(take));
    }
    for (let left = streams; (left = left.filter((stream) => stream.length > 0)).length > 0; ) left[below(left.length)]!.shift()!();
    assert.deepEqual(at, top);
    assert.deepEqual(s.cursor, top);
    assert.equal(s.holding, false);
  }
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
