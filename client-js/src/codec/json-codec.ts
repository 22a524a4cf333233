import { fromBase64, toBase64 } from "../base64.js";
import type * as wire from "../wire.js";
import type { Codec, Encoded } from "./codec.js";

/** The browser's own parser, which nothing in JavaScript outruns. Bytes are base64. */
export class JsonCodec implements Codec {
  readonly name = "json";
  readonly subprotocol = "xpush.v1.json";
  private readonly decoder = new TextDecoder();

  encode(frame: wire.ClientFrame): Encoded {
    const body = "publish" in frame ? frame.publish : "send" in frame ? frame.send : undefined;
    if (body?.binary instanceof Uint8Array) {
      const key = "publish" in frame ? "publish" : "send";
      return JSON.stringify({ [key]: { ...body, binary: toBase64(body.binary) } });
    }
    return JSON.stringify(frame);
  }

  decode(data: string | Uint8Array): wire.ServerFrame {
    return fromJson(JSON.parse(typeof data === "string" ? data : this.decoder.decode(data)) as wire.ServerFrame);
  }
}

/** Turns the base64 of a parsed frame into bytes, in place. */
export function fromJson(frame: wire.ServerFrame): wire.ServerFrame {
  if (typeof frame !== "object" || frame === null) throw new SyntaxError("not a frame");
  if ("publication" in frame) toBytes(frame.publication);
  else if ("message" in frame) toBytes(frame.message);
  else if ("history" in frame) frame.history.publications.forEach(toBytes);
  return frame;
}

function toBytes(holder: { binary?: string | Uint8Array }): void {
  if (typeof holder.binary === "string") holder.binary = fromBase64(holder.binary);
}
