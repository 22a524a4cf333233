import type { Encoded } from "../codec/codec.js";
import type * as wire from "../wire.js";
/** The wires that a browser or Node can have, best first. */
export declare const WIRE_KINDS: readonly ["webtransport", "websocket", "longpoll"];
export type WireKind = (typeof WIRE_KINDS)[number];
/** How a frame came. */
export type Lane = 
/** In order with all others: a hole can't be filled by what comes later. */
"ordered"
/** On one of several streams: what is missing may still come on another. */
 | "stream"
/** In a datagram: what is missing is lost, and nobody minds. */
 | "datagram";
/** Why a wire is over. */
export interface WireEnd {
    /** The server's close code. Absent: the wire broke, or was never up. */
    code?: number;
    reason: string;
}
/** What a wire tells. `open` at most once; `close` once and last; nothing after `Wire.close` was called. */
export interface WireEvents {
    open(): void;
    frame(frame: wire.ServerFrame, lane: Lane): void;
    close(end: WireEnd): void;
}
/** One live pipe of frames; dies with its socket. Knows no session and no channel. */
export interface Wire {
    /** Hands over one frame, behind all before it. Only once the wire is open. */
    send(frame: Encoded): void;
    /** Hands over a frame that may be lost, in a datagram if this wire has them and the frame fits. */
    sendLossy(frame: Encoded): void;
    /** Lets go of the socket, and tells the other side why where the wire can. */
    close(code: number, reason: string): void;
}
