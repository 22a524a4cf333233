import { Channel } from "./channel.js";
import { type ClientState, type WireChoice } from "./connector.js";
import { Emitter } from "./emitter.js";
import { type Message } from "./message.js";
import type { ClientOptions } from "./options.js";
import type * as wire from "./wire.js";
import type { WireKind } from "./wires/wire.js";
/** What happens to a client. */
export interface ClientEvents {
    state: ClientState;
    /** The wire in use; `undefined`: none. */
    transport: WireKind | undefined;
    /** Milliseconds to the server and back. */
    rtt: number;
    /** A private message. */
    message: Message;
    /** Something failed. Unless it is a `ClosedError`, the client goes on and tries again. */
    error: Error;
}
/** One session with a server, over whichever wire works best, as long as `close` is not called. */
export declare class Client extends Emitter<ClientEvents> {
    private readonly options;
    private readonly channels;
    private readonly queue;
    private readonly requests;
    private readonly tokens;
    private readonly directory;
    private readonly connector;
    private readonly makers;
    /** Channels by the id of the `subscribe` that is under way. */
    private readonly subscribing;
    private connectId;
    private lastId;
    private resumeState;
    private info;
    private currentState;
    private lastRtt;
    /** `url`: the server, as in `https://push.example`; in a page, a path or "" is its own server. */
    constructor(url: string, options?: ClientOptions);
    get state(): ClientState;
    /** The wire in use. */
    get transport(): WireKind | undefined;
    /** Milliseconds to the server and back, measured last. */
    get rtt(): number | undefined;
    /** The session's address: private messages go there. */
    get session(): string | undefined;
    /** The user whom the token names. */
    get user(): string | undefined;
    /** The node that holds the connection. */
    get node(): string | undefined;
    /** Messages that are published and not acknowledged yet. */
    get unacknowledged(): number;
    /** The channel of this name, always the same object: `namespace:rest`. */
    channel(name: string): Channel;
    /** Sends a private message to whoever is connected now. Resolves with the number of sessions that it reached. */
    send(to: wire.Target, data: unknown, options?: {
        event?: string;
    }): Promise<number>;
    /**
     * Uses this wire alone, or again the best there is. What is in use stays so until the other is live. Resolves
     * then; rejects when the first try fails, and goes on trying.
     */
    use(choice: WireChoice): Promise<void>;
    /** Ends the session. What waits is rejected with `ClosedError`. */
    close(): void;
    private readonly link;
    private ask;
    private nextId;
    private host;
    private dial;
    private hello;
    private adopted;
    private know;
    /** Long-polling goes on at another node by itself. What was under way may have been lost with the first. */
    private moved;
    private lost;
    private refused;
    /** The token was not taken. `another`: something else is different the next time. */
    private deny;
    private take;
    private toChannel;
    private failed;
    private expired;
    private refresh;
    private become;
    private end;
}
