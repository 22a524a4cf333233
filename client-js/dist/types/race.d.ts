import type { Address } from "./directory.js";
import type { Connection, ConnectionEvents } from "./connection.js";
import type { Runner } from "./race-plan.js";
import type * as wire from "./wire.js";
import type { WireEnd, WireKind } from "./wires/wire.js";
/** Milliseconds until a wire that neither opens nor fails counts as failed: a firewall that says nothing. */
export declare const OPEN_DEADLINE = 5000;
/** Milliseconds from an open wire to a live session. */
export declare const HANDSHAKE_DEADLINE = 5000;
/** What a race tells. */
export interface RaceEvents {
    /** Begins one wire. */
    dial(address: Address, events: ConnectionEvents): Connection;
    /** The hand-shake's frame, for a wire that is open. */
    hello(): wire.Connect;
    /** A session is live over it; its events are the receiver's from here on. May come again, with a better wire. */
    won(connection: Connection, connected: wire.Connected, hello: wire.Connect): void;
    /** The server's word, which no other wire would change. The race is over. */
    refused(error: wire.Error | WireEnd): void;
    /** This wire failed. */
    failed(kind: WireKind, reason: string): void;
    /** Nobody runs any more. */
    over(): void;
}
/**
 * Tries wires side by side, the later ones with a delay (RFC 8305). The first that is open greets; one at a time,
 * since a session lives on one connection. After a victory only better wires run on: the user is live over
 * WebSocket while a slow WebTransport still gets its chance.
 */
export declare class Race {
    private readonly events;
    private readonly entries;
    private best;
    private stopped;
    /** `preference`: the addresses best first, which need not be the order in which they start. */
    constructor(plan: readonly Runner[], preference: readonly Address[], events: RaceEvents);
    /** Whether a hand-shake is under way: to stop now could lose the session's other connection as well. */
    get greeting(): boolean;
    stop(): void;
    private dial;
    private opened;
    /** The best of those that are open says hello, unless another is just doing so. */
    private greet;
    private won;
    private closed;
    private fail;
    /** With nobody running, the next starts at once; with nobody left, the race is over. */
    private carryOn;
    private out;
}
