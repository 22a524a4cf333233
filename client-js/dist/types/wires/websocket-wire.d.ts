import type { Codec, Encoded } from "../codec/codec.js";
import type { Wire, WireEvents } from "./wire.js";
/** One WebSocket: one message a frame, text or bytes by its subprotocol. */
export declare class WebSocketWire implements Wire {
    private readonly socket;
    private events;
    constructor(url: string, codec: Codec, events: WireEvents, WebSocketClass: typeof WebSocket);
    send(frame: Encoded): void;
    sendLossy(frame: Encoded): void;
    close(code: number, reason: string): void;
}
