import type { Address } from "./directory.js";
import type { WireMemory } from "./wire-memory.js";
import type { WireKind } from "./wires/wire.js";
/** Milliseconds that a wire has for itself before the next is tried beside it. */
export declare const HEAD_START = 150;
/** Long-polling works nearly everywhere, and would win against a slow but better wire. */
export declare const LONGPOLL_START = 2000;
/** One runner and when it starts, in milliseconds; all the rest having failed, it starts at once. */
export interface Runner {
    readonly address: Address;
    readonly delay: number;
}
/** Who runs when: the last winner first, then best first; who rests comes when all others have failed, if at all. */
export declare function planRace(addresses: readonly Address[], memory: WireMemory): Runner[];
/** Those that would be an improvement on `current`. The document's order is the server's word on what is better. */
export declare function betterThan(current: WireKind, addresses: readonly Address[]): Address[];
