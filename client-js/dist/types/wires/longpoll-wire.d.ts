import type { Encoded } from "../codec/codec.js";
import type { Wire, WireEvents } from "./wire.js";
/**
 * One lasting connection behind many requests: a poll that hangs, and a second request for what is said meanwhile.
 * Requests may reach different nodes, so publishes are handed over only when those before them are answered: a node
 * could die with them, and another take later ones first.
 */
export declare class LongPollWire implements Wire {
    private readonly url;
    private events;
    private state;
    private outbox;
    /** Publishes that were handed over and are not answered yet. */
    private readonly open;
    private polling;
    private sending;
    private readonly requests;
    constructor(url: string, events: WireEvents);
    send(frame: Encoded): void;
    sendLossy(frame: Encoded): void;
    close(): void;
    private flush;
    /** Polls until the session ends. The answer's state goes with the next poll, which confirms the answer. */
    private poll;
    /** Commands beside a hanging poll, one request at a time so that they keep their order. */
    private handOver;
    /** What goes into the next request, in order. */
    private take;
    private post;
    /** A refusal is told as an `error` frame. To ask again would change nothing. */
    private refused;
    private deliver;
    private end;
}
