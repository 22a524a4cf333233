import type * as wire from "../wire.js";

/** A frame as it goes over a wire. */
export type Encoded = string | Uint8Array<ArrayBuffer>;

/** How frames become bytes, and back. `binary` fields are bytes on this side, whatever they are on the wire. */
export interface Codec {
  readonly name: CodecName;
  /** The WebSocket subprotocol. */
  readonly subprotocol: string;
  encode(frame: wire.ClientFrame): Encoded;
  /** Throws on bytes that are no frame. A frame of a kind that this version doesn't know is one. */
  decode(data: string | Uint8Array): wire.ServerFrame;
}

/** The two codecs of the wire contract. */
export type CodecName = "json" | "msgpack";
