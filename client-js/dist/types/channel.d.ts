import { CommandError } from "./errors/command-error.js";
import { Emitter } from "./emitter.js";
import type { HistoryPage, PresenceList, Publication } from "./message.js";
import type * as wire from "./wire.js";
/** Publications that wait for a `for await` loop; one more ends the loop with an error. */
export declare const ITERATOR_CAPACITY = 16384;
/** What happens in a channel. */
export interface ChannelEvents {
    /** The next message: each once, in order. */
    publication: Publication;
    join: wire.Join;
    leave: wire.Leave;
    /** How many sessions are in the channel now. */
    occupancy: wire.Occupancy;
    /** These publications can't be had any more. */
    gap: wire.Gap;
    /** We read more slowly than the channel speaks; `behind: 0` says that it is live again. */
    lag: wire.Lag;
    /** The subscription is live, for the first time or again. */
    subscribed: wire.Subscribed;
    unsubscribed: wire.Unsubscribed;
    /** Somebody's signal: something of use now or not at all, as that they are writing. */
    signal: wire.ChannelSignal;
    /** How far a member has come: a later one never says less. */
    receipt: wire.Receipt;
    /** The server refused the subscription. Those that may succeed later are tried again. */
    error: CommandError;
}
export interface SubscribeOptions {
    /** Begin with the last this many publications. */
    last?: number;
    /** Begin behind this place. */
    cursor?: wire.Cursor;
}
export interface PublishOptions {
    /** What kind of message it is; `message` if absent. */
    event?: string;
    /** An id of the application's own: published again with the same one, the message stands once in the log. */
    messageId?: string;
    /** The offset of the message that it answers. */
    replyTo?: number;
    /** Users who are named in it: they are told, in their inbox, though they have silenced the channel. At most 20. */
    mentions?: string[];
    /** Milliseconds after which the message is gone. */
    expiresIn?: number;
}
export interface HistoryOptions {
    /** Forward: the page begins behind it. Backward: it ends before it. Absent: at the oldest, or at the newest. */
    cursor?: wire.Cursor;
    /** Newest first. */
    backward?: boolean;
    /** 1 to 256; absent: 50. */
    limit?: number;
}
/** What a channel needs of its client. */
export interface ChannelLink {
    /** Sends the frame where there is a connection, and tells its id. Its answer comes to the channel. */
    subscribe(channel: Channel, subscribe: Omit<wire.Subscribe, "id">): number | undefined;
    unsubscribe(name: string): Promise<void>;
    publish(name: string, data: unknown, options: PublishOptions): Promise<wire.Cursor>;
    cast(name: string, data: unknown, event: string | undefined): void;
    signal(name: string, event: string, data: unknown): void;
    mark(kind: "read" | "received", name: string, offset: number): Promise<void>;
    history(name: string, options: HistoryOptions): Promise<HistoryPage>;
    presence(name: string): Promise<PresenceList>;
    /** Ends the wire; the next one has nothing late of this one. */
    renew(): void;
    random(): number;
}
/** A named, ordered stream of publications. Subscribed once, it stays so across wires, nodes and reconnects. */
export declare class Channel extends Emitter<ChannelEvents> implements AsyncIterable<Publication> {
    readonly name: string;
    private readonly link;
    private readonly sequence;
    private readonly backoff;
    private wanted;
    private live;
    private last;
    /** The id of the command whose answer begins the subscription. */
    private awaiting;
    private promise;
    private settle;
    private count;
    private timer;
    private holeTimer;
    private lane;
    /** That of the first subscription on this wire, if it is one of several streams. */
    private wireEpoch;
    private readonly enders;
    /** Whether the subscription is live. */
    get subscribed(): boolean;
    /** The place behind the last publication that was handed on: to go on from there another time. */
    get cursor(): wire.Cursor | undefined;
    /** Sessions in the channel, as far as the server tells. */
    get occupancy(): number | undefined;
    /** Resolves once the subscription is live. Without options it begins now. Subscribed already: nothing changes. */
    subscribe(options?: SubscribeOptions): Promise<void>;
    unsubscribe(): Promise<void>;
    /**
     * Publishes a JSON value, or bytes (ArrayBuffer, typed array). Resolves with its place once the server has it
     * as durably as the namespace promises; until then it is kept, and sent again after a loss, never twice in the
     * log. Rejects with `QueueFullError` when too many wait.
     */
    publish(data: unknown, options?: PublishOptions): Promise<wire.Cursor>;
    /**
     * Publishes what is worth nothing later (typing, pointers): no answer, no second try, in a datagram where the
     * wire has them. For channels of retention `none`.
     */
    cast(data: unknown, options?: Pick<PublishOptions, "event">): void;
    /** Tells everybody who is in the channel now: kept nowhere, without an answer, and not sent again. */
    signal(event: string, data?: unknown): void;
    /** The user has read the channel up to here, on whichever device. It never goes back. */
    markRead(offset: number): Promise<void>;
    /** This device has the channel up to here. It never goes back. */
    markReceived(offset: number): Promise<void>;
    /** One page of the channel's log; the page's `next` is the cursor of the next one. */
    history(options?: HistoryOptions): Promise<HistoryPage>;
    /** Who is in the channel now. */
    presence(): Promise<PresenceList>;
    /** The publications from now on. Subscribes if need be, and then unsubscribes when the loop is left. */
    [Symbol.asyncIterator](): AsyncGenerator<Publication, void, void>;
    private begin;
    /** By itself, not at our wish. */
    private ended;
    private counted;
    /** Asks for it again from the log, behind what we have: something is missing, or the server knows better. */
    private again;
    /** A hole that nothing fills: a stream was reset, or its end got lost. */
    private watchHole;
    private askLater;
    private suspend;
    private drop;
}
