import type { Codec } from "./codec/codec.js";
import type * as wire from "./wire.js";
import type { Lane, Wire, WireEnd, WireEvents, WireKind } from "./wires/wire.js";
/** What a connection tells. */
export interface ConnectionEvents {
    opened(): void;
    /** The session is live. Called before any other frame is handed on, so that its receiver can be set. */
    connected(connected: wire.Connected): void;
    /** `connect` was refused. */
    refused(error: wire.Error): void;
    frame(frame: wire.ServerFrame, lane: Lane): void;
    closed(end: WireEnd): void;
    rtt(milliseconds: number): void;
}
/** How a connection is made. */
export interface ConnectionOptions {
    readonly kind: WireKind;
    readonly codec: Codec;
    open(codec: Codec, events: WireEvents): Wire;
    nextId(): number;
    /** Milliseconds without a frame after which the wire counts as dead. */
    readonly deadAfter: number;
}
/**
 * One wire with its hand-shake and a liveness check of its own: a server that was killed is noticed in seconds,
 * where QUIC's and TCP's time-outs take a quarter of a minute and more.
 */
export declare class Connection {
    private readonly options;
    readonly kind: WireKind;
    events: ConnectionEvents;
    private readonly wire;
    private early;
    private limits;
    private pingInterval;
    private farewell;
    private ticker;
    /** Ticks since the last frame came. */
    private silence;
    /** Ticks since the last ping left. */
    private sincePing;
    private lastPing;
    private pings;
    private over;
    constructor(options: ConnectionOptions, events: ConnectionEvents);
    /** The first frame. */
    greet(connect: wire.Connect): void;
    /** Throws where the frame is longer than the server takes: it would close the connection for it. */
    send(frame: wire.ClientFrame): void;
    sendLossy(frame: wire.ClientFrame): void;
    /** Asks at once whether the wire lives: the page woke up, or the network changed. */
    probe(): void;
    close(code: number, reason: string): void;
    private encode;
    private receive;
    /** Counts ticks, not time: a computer that slept finds its frames waiting, not its wire dead. */
    private watch;
    private ping;
    /** Gives the wire up. 4002 and not 4000: the server keeps the session's places, since it comes back. */
    break(reason?: string): void;
    private end;
    private stop;
}
