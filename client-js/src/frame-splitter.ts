import { WireError } from "./errors/wire-error.js";

/** Writes frames for a QUIC stream or datagram: each behind its length, a varint of RFC 9000, section 16. */
export function joinFrames(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let size = 0;
  for (const frame of frames) size += varintLength(frame.length) + frame.length;
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  let at = 0;
  for (const frame of frames) {
    const length = frame.length;
    switch (varintLength(length)) {
      case 1:
        view.setUint8(at, length);
        break;
      case 2:
        view.setUint16(at, length | 0x4000);
        break;
      default:
        view.setUint32(at, (length | 0x80000000) >>> 0);
    }
    at += varintLength(length);
    out.set(frame, at);
    at += length;
  }
  return out;
}

/** A frame is far below 2^30 bytes, so the eight-byte form is never written. */
function varintLength(value: number): number {
  return value < 0x40 ? 1 : value < 0x4000 ? 2 : 4;
}

/** Takes a stream's bytes as they come and gives its frames. */
export class FrameSplitter {
  private buffer = new Uint8Array(0);
  private start = 0;
  private end = 0;
  /** Whether `buffer` is ours to write to, and not a chunk that was handed in. */
  private owned = false;

  /** `limit`: the longest frame that is taken, in bytes; a longer one is the end of the connection. */
  constructor(private readonly limit: number) {}

  /** Whether the bytes so far end with a frame's end. */
  get empty(): boolean {
    return this.start === this.end;
  }

  /** The frames that `chunk` completes. They are valid until the next call. */
  push(chunk: Uint8Array): Uint8Array[] {
    this.append(chunk);
    const frames: Uint8Array[] = [];
    for (;;) {
      const first = this.buffer[this.start];
      if (this.start === this.end || first === undefined) break;
      const prefix = 1 << (first >> 6);
      if (this.end - this.start < prefix) break;
      let length = first & 0x3f;
      for (let i = 1; i < prefix; i++) length = length * 256 + this.buffer[this.start + i]!;
      if (length > this.limit) throw new WireError(`a frame of ${length} bytes came, ${this.limit} are allowed`);
      const from = this.start + prefix;
      if (this.end - from < length) break;
      frames.push(this.buffer.subarray(from, from + length));
      this.start = from + length;
    }
    return frames;
  }

  private append(chunk: Uint8Array): void {
    if (this.empty) {
      // The usual case, whole frames: nothing is copied.
      this.buffer = chunk as Uint8Array<ArrayBuffer>;
      this.start = 0;
      this.end = chunk.length;
      this.owned = false;
      return;
    }
    const waiting = this.end - this.start;
    const needed = waiting + chunk.length;
    if (!this.owned || this.start + needed > this.buffer.length) {
      // Doubling keeps a long frame in many chunks from being copied with each of them.
      const grown = new Uint8Array(Math.max(needed, waiting * 2));
      grown.set(this.buffer.subarray(this.start, this.end));
      this.buffer = grown;
      this.start = 0;
      this.owned = true;
    }
    this.buffer.set(chunk, this.start + waiting);
    this.end = this.start + needed;
  }
}
