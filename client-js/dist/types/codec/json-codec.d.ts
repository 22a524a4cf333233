import type * as wire from "../wire.js";
import type { Codec, Encoded } from "./codec.js";
/** The browser's own parser, which nothing in JavaScript outruns. Bytes are base64. */
export declare class JsonCodec implements Codec {
    readonly name = "json";
    readonly subprotocol = "xpush.v1.json";
    private readonly decoder;
    encode(frame: wire.ClientFrame): Encoded;
    decode(data: string | Uint8Array): wire.ServerFrame;
}
/** Turns the base64 of a parsed frame into bytes, in place. */
export declare function fromJson(frame: wire.ServerFrame): wire.ServerFrame;
