import type { WireKind } from "./wires/wire.js";
/** Milliseconds a wire rests after its first failure; each further one doubles it. */
export declare const FIRST_REST = 30000;
/** Where a page keeps what it learned; Node has none. */
type Store = Pick<Storage, "getItem" | "setItem">;
/**
 * Which wire won on this network and which failed, beyond a reload. A wire that failed rests: browsers slow down
 * a page that hammers WebTransport, and good attempts wait with the bad ones.
 */
export declare class WireMemory {
    private readonly base;
    private readonly store;
    private readonly now;
    private key;
    private network;
    constructor(base: string, store?: Store | undefined, now?: () => number);
    get winner(): WireKind | undefined;
    /** When `kind` may be tried again, in milliseconds since 1970; 0: it did not fail. */
    restsUntil(kind: WireKind): number;
    resting(kind: WireKind): boolean;
    won(kind: WireKind): void;
    /** `kind` failed where another wire works. */
    failed(kind: WireKind): void;
    /** Reads again what is known: the network may be another. */
    load(): void;
    private save;
}
export {};
