import assert from "node:assert/strict";
import { test } from "node:test";
import { FrameSplitter, joinFrames } from "../src/frame-splitter.js";

const frames = [0, 1, 63, 64, 16_383, 16_384, 70_000].map((length) => new Uint8Array(length).fill(length & 0xff));

test("frames read back, however the stream was cut", () => {
  const stream = joinFrames(frames);
  for (const size of [1, 2, 3, 64, 1000, 65_536, stream.length]) {
    const splitter = new FrameSplitter(100_000);
    const read: Uint8Array[] = [];
    for (let at = 0; at < stream.length; at += size) {
      for (const frame of splitter.push(stream.slice(at, at + size))) read.push(frame.slice());
    }
    assert.deepEqual(read, frames, `in chunks of ${size}`);
    assert.ok(splitter.empty);
  }
});

test("the RFC's eight-byte form is read", () => {
  const frame = new FrameSplitter(10).push(new Uint8Array([0xc0, 0, 0, 0, 0, 0, 0, 2, 7, 8]));
  assert.deepEqual(frame, [new Uint8Array([7, 8])]);
});

test("a frame over the limit is refused before it comes", () => {
  assert.throws(() => new FrameSplitter(10).push(new Uint8Array([0x40, 11])), /11 bytes/);
});
