import { Backoff } from "./backoff.js";
import type { Connection, ConnectionEvents } from "./connection.js";
import type { Address, Directory } from "./directory.js";
import { CommandError } from "./errors/command-error.js";
import type * as wire from "./wire.js";
import type { WireMemory } from "./wire-memory.js";
import type { Lane, WireEnd, WireKind } from "./wires/wire.js";
export type ClientState = "connecting" | "connected" | "disconnected" | "closed";
/** Which wires may be used: one alone, or the best there is. */
export type WireChoice = WireKind | "auto";
/** What to do about a `connect` that was refused. */
export type Verdict = "again" | "later" | "never";
/** Who is connected. */
export interface ConnectorHost {
    /** Gets what `hello` needs and does not have: a token. */
    prepare(): Promise<void>;
    /** The hand-shake's frame. */
    hello(): wire.Connect;
    /** `connect` was refused; what it was refused for may be changed now. */
    refused(error: wire.Error | CommandError | WireEnd): Verdict;
    dial(address: Address, events: ConnectionEvents): Connection;
    /** Whether this page or process can have such a wire at all. */
    has(kind: WireKind): boolean;
    /** This connection is the one in use; the one before it is gone. */
    adopted(connection: Connection, connected: wire.Connected, hello: wire.Connect): void;
    /** There is no connection any more. */
    lost(): void;
    frame(frame: wire.ServerFrame, lane: Lane): void;
    rtt(milliseconds: number): void;
    state(state: ClientState): void;
    /** Something failed that will be tried again. */
    trouble(error: Error): void;
    /** The server allows no return. */
    ended(code: number, reason: string): void;
}
/** Keeps one connection live: races the wires, returns after a loss, and goes to a better wire beside the old one. */
export declare class Connector {
    private readonly host;
    private readonly directory;
    private readonly memory;
    private readonly backoff;
    private current;
    private since;
    private race;
    /** Raised by whatever makes attempts under way obsolete. */
    private round;
    private attempting;
    private timer;
    private choice;
    private chosen;
    private stale;
    private drainingUntil;
    /** When to leave the node that drains. */
    private leaveAt;
    private readonly unwatch;
    constructor(host: ConnectorHost, directory: Directory, memory: WireMemory, backoff: Backoff);
    get connection(): Connection | undefined;
    start(): void;
    /** Resolves once the wire in use is of this kind; rejects when the first try fails, and goes on trying. */
    use(choice: WireChoice): Promise<void>;
    /** The node leaves: be live elsewhere, then let go of it. */
    drain({ reconnect_in, close_in }: wire.Draining): void;
    close(code: number, reason: string): void;
    private get draining();
    private awake;
    private restart;
    private cancel;
    private later;
    /** One round: beside the connection in use if there is one. */
    private attempt;
    private run;
    private adopt;
    /** The race is over and a connection in use: when does a better wire get its next try? */
    private settle;
    private lost;
    private refused;
    /** The next round comes after the back-off; with a connection in use, nobody notices. */
    private fallBack;
}
