import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { decode, encode } from "@msgpack/msgpack";
import { fromBase64, toBase64 } from "../src/base64.js";
import { JsonCodec } from "../src/codec/json-codec.js";
import { MsgpackCodec } from "../src/codec/msgpack-codec.js";
import { MsgpackReader } from "../src/codec/msgpack-reader.js";
import { MsgpackWriter } from "../src/codec/msgpack-writer.js";
import type * as wire from "../src/wire.js";

const json = new JsonCodec();
const msgpack = new MsgpackCodec();

interface Vector {
  name: string;
  json: unknown;
  msgpack: string;
}

/** The repository's own, which the Rust tests read as well: frames of a client's, or of a server's. */
function vectors(direction: "client" | "server"): Vector[] {
  const vectors = JSON.parse(readFileSync(`../protocol/vectors/${direction}.json`, "utf8")) as Vector[];
  assert.ok(vectors.length > 0, `protocol/vectors/${direction}.json has none`);
  return vectors;
}

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"));

/** A client's frame from a vector: an application's bytes are bytes. */
function fromVector(value: unknown): wire.ClientFrame {
  const frame = structuredClone(value) as wire.ClientFrame;
  const body = "publish" in frame ? frame.publish : "send" in frame ? frame.send : undefined;
  if (typeof body?.binary === "string") body.binary = fromBase64(body.binary);
  return frame;
}

test("the server's frames read the same in both codecs", () => {
  for (const vector of vectors("server")) {
    const fromJson = json.decode(JSON.stringify(vector.json));
    assert.deepEqual(msgpack.decode(bytes(vector.msgpack)), fromJson, vector.name);
  }
});

test("a client's frames are written as the contract has them", () => {
  for (const vector of vectors("client")) {
    const frame = fromVector(vector.json);
    assert.deepEqual(JSON.parse(json.encode(frame) as string), vector.json, vector.name);
    // The bytes may differ in the order of keys and the width of numbers: what they say may not.
    assert.deepEqual(decode(msgpack.encode(frame) as Uint8Array), decode(bytes(vector.msgpack)), vector.name);
  }
});

const VALUES: unknown[] = [
  null,
  true,
  false,
  ...[0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, Number.MAX_SAFE_INTEGER],
  ...[-1, -32, -33, -128, -129, -32768, -32769, -2147483648, -2147483649, Number.MIN_SAFE_INTEGER],
  ...[0.5, -1.25, 1e300, 5e-324, Math.PI],
  ...["", "x", "ü☕🎉", "y".repeat(31), "y".repeat(32), "y".repeat(255), "y".repeat(256), "y".repeat(70000)],
  [],
  Array.from({ length: 15 }, (_, i) => i),
  Array.from({ length: 16 }, (_, i) => -1 - i),
  Array.from({ length: 70000 }, () => 1),
  {},
  Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}`, [i, { deep: [null] }]])),
  Object.fromEntries(Array.from({ length: 66000 }, (_, i) => [`k${i}`, i])),
  new Uint8Array([0, 255, 1]),
  new Uint8Array(300).fill(7),
  new Uint8Array(70000).fill(9),
];

test("our MessagePack and an independent one understand each other", () => {
  for (const value of VALUES) {
    assert.deepEqual(decode(new MsgpackWriter().write(value)), value);
    assert.deepEqual(new MsgpackReader(encode(value)).read(), value);
    assert.deepEqual(new MsgpackReader(new MsgpackWriter().write(value)).read(), value);
  }
});

test("integers take their shortest form", () => {
  for (const value of VALUES.filter((value) => Number.isSafeInteger(value))) {
    assert.deepEqual(new MsgpackWriter().write(value), new Uint8Array(encode(value)), String(value));
  }
});

test("MessagePack says what JSON says of what neither can say", () => {
  const value = { a: undefined, b: [undefined], c: new Date(0), d: NaN };
  assert.deepEqual(new MsgpackReader(new MsgpackWriter().write(value)).read(), JSON.parse(JSON.stringify(value)));
  assert.throws(() => new MsgpackWriter().write(() => 1), TypeError);
});

test("broken MessagePack throws and never hangs", () => {
  const whole = new MsgpackWriter().write({ publication: { data: [1, "two", 3.5], offset: 2 ** 40 } });
  for (let end = 0; end < whole.length; end++) {
    assert.throws(() => new MsgpackReader(whole.subarray(0, end)).read(), SyntaxError);
  }
  assert.throws(() => new MsgpackReader(new Uint8Array([...whole, 0])).read(), SyntaxError);
  assert.throws(() => new MsgpackReader(new Uint8Array(100_000).fill(0x91)).read(), SyntaxError);
  assert.throws(() => new MsgpackReader(new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff])).read(), SyntaxError);
  assert.throws(() => new MsgpackReader(new Uint8Array([0xc1])).read(), SyntaxError);
});

test("a key that names the prototype is a key", () => {
  const value = new MsgpackReader(encode(JSON.parse('{"__proto__":{"admin":true}}'), { ignoreUndefined: true }));
  const read = value.read() as { admin?: boolean };
  assert.equal(read.admin, undefined);
  assert.deepEqual(Object.keys(read), ["__proto__"]);
});

test("bytes are bytes to the application, in both codecs", () => {
  const binary = new Uint8Array([0, 1, 254, 255]);
  const frame: wire.ClientFrame = { publish: { id: 1, channel: "room:a", binary } };
  assert.deepEqual(JSON.parse(json.encode(frame) as string), { publish: { id: 1, channel: "room:a", binary: "AAH+/w==" } });
  assert.equal(frame.publish.binary, binary, "the caller's frame is as it was");
  const publication = { channel: "room:a", offset: 1, message_id: "m", event: "e", time: 1, binary: "AAH+/w==" };
  assert.deepEqual(json.decode(JSON.stringify({ publication })), { publication: { ...publication, binary } });
  const page = { history: { id: 1, channel: "room:a", publications: [publication], top: { epoch: 1, offset: 1 } } };
  const read = json.decode(JSON.stringify(page)) as { history: wire.HistoryPage };
  assert.deepEqual(read.history.publications[0]?.binary, binary);
});

test("base64 holds for every length", () => {
  for (const length of [0, 1, 2, 3, 4, 8191, 8192, 8193, 50_000]) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 7) & 0xff);
    assert.equal(toBase64(bytes), Buffer.from(bytes).toString("base64"));
    assert.deepEqual(fromBase64(toBase64(bytes)), bytes);
  }
});
