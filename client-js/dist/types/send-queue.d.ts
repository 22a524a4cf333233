import type * as wire from "./wire.js";
/** Writes a frame to the wire in use. Throws what is wrong with the frame itself. */
type Transmit = (frame: wire.ClientFrame) => void;
/**
 * Publishes until they are acknowledged, in order. Whatever a lost wire left open goes again under the same
 * message id, so that it stands once in the log.
 */
export declare class SendQueue {
    /** Messages that may wait for their acknowledgement, sent or not; one more is refused. */
    private readonly capacity;
    private readonly entries;
    private readonly backoff;
    private transmit;
    private window;
    private inFlight;
    private pause;
    /** Nothing goes out until `again`. */
    private held;
    constructor(
    /** Messages that may wait for their acknowledgement, sent or not; one more is refused. */
    capacity: number, random?: () => number);
    /** Messages that are not acknowledged yet. */
    get size(): number;
    push(frame: wire.Publish): Promise<wire.Cursor>;
    /** A wire is live: everything that is open goes out again. `window`: publishes that may be in flight. */
    attach(transmit: Transmit, window: number): void;
    detach(): void;
    /** The server has it. False: the id is none of ours. */
    published(answer: wire.Published): boolean;
    /** The server refused it. `hold`: it will take it once something else is done (a new token), and then `again`. */
    refused(error: wire.Error, hold: boolean): boolean;
    /** Sends everything that is open again, in order. */
    again(): void;
    close(error: Error): void;
    private wait;
    private pump;
    private take;
}
export {};
