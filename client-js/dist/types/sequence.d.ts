import type { Publication } from "./message.js";
import type * as wire from "./wire.js";
import type { Lane } from "./wires/wire.js";
/** Publications held while one before them is missing. Full: they are asked for again, from the log. */
export declare const HOLD_CAPACITY = 1024;
/** What comes out of a sequence. */
export interface SequenceEvents {
    /** The next publication, each once and in order. */
    publication(publication: Publication): void;
    /** These can't be had any more. */
    lost(gap: wire.Gap): void;
    /** Too much is held, or an epoch came back: subscribe again with the cursor. */
    overflow(): void;
}
/**
 * One channel's order, whatever the wire: several streams overtake each other, a resumed subscription repeats
 * what is known, a datagram gets lost. Old ones are dropped, what is ahead is held until the hole is filled.
 * Where the log is lost and begins anew, what is live of the new epoch may come before the news of it, or what is
 * left of the old one after.
 */
export declare class Sequence {
    private readonly channel;
    private readonly events;
    private epoch;
    /** That of publications which do not say theirs: the one that the subscription began with. */
    private implied;
    /** Those that were left. */
    private past;
    private next;
    /** Between a (re)subscription and its answer, where it begins is not known yet. */
    private waiting;
    /** This channel keeps nothing, and the latest wins: the server said so, or a datagram came. */
    private ephemeral;
    /** Ahead of `next`, in this epoch. */
    private held;
    /** By epoch: what came of those that no gap and no answer has announced yet. */
    private readonly foreign;
    private gaps;
    constructor(channel: string, events: SequenceEvents);
    /** The place behind the last publication that was handed on. */
    get cursor(): wire.Cursor | undefined;
    /** Whether something is held for what is missing before it. */
    get holding(): boolean;
    /** A subscription is asked for; what comes before its answer is held. */
    suspend(): void;
    /** Forgets the place: the next subscription begins anew. */
    reset(): void;
    /** The subscription's answer: it is live from `cursor` on. */
    start(cursor: wire.Cursor, gap: wire.Gap | undefined, ephemeral?: boolean): void;
    /** A publication came. */
    take(publication: Publication, lane: Lane): void;
    /** The server says what is lost. On a wire of several streams it may be early: what is before it still comes. */
    gap(gap: wire.Gap, lane: Lane): void;
    private hold;
    private drop;
    /** Leaves the epoch for another one. */
    private enter;
    /** What came early turns out to be of this epoch. */
    private claim;
    private deliver;
    private lose;
    private skip;
    /** Hands on what is next in line, and passes over what is lost. A listener may change everything meanwhile. */
    private drain;
}
