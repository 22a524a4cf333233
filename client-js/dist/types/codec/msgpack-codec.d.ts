import type * as wire from "../wire.js";
import type { Codec, Encoded } from "./codec.js";
/** MessagePack: bytes travel as they are, a third smaller than in JSON. */
export declare class MsgpackCodec implements Codec {
    readonly name = "msgpack";
    readonly subprotocol = "xpush.v1.msgpack";
    private readonly writer;
    encode(frame: wire.ClientFrame): Encoded;
    decode(data: string | Uint8Array): wire.ServerFrame;
}
