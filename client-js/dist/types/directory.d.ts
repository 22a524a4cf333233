import { type WireKind } from "./wires/wire.js";
/** Milliseconds after which another server is asked beside one that has not answered: it may be dead, or just far. */
export declare const PATIENCE = 1000;
/** One wire and where it is. */
export interface Address {
    readonly kind: WireKind;
    readonly url: string;
    /** Certificates that WebTransport takes though no authority signed them. */
    readonly hashes: readonly Uint8Array<ArrayBuffer>[];
}
/** Asks the servers which node to use, over which wires, and for the ticket to it. */
export declare class Directory {
    private readonly base;
    private readonly token;
    private readonly random;
    private known;
    /** The one that answered last comes first. */
    private bases;
    /** Those that give no tickets, and only tell their own wires. */
    private readonly plain;
    /** A node that was lost or can't be had: it may be dead, and the servers not know yet. */
    avoid: string | undefined;
    /** The node that was named last. */
    named: string | undefined;
    private given;
    /** `base`: a server's URL, without `/v1/…`. `token`: the one in use. */
    constructor(base: string, token: () => string | undefined, random?: () => number);
    /** What stands for the token at the node whose addresses were given last. */
    get ticket(): string | undefined;
    /** The ticket was refused: the token itself is shown next. False: there was none. */
    dropTicket(): boolean;
    /** The wires, best first. `fresh`: ask again; nodes come and go. Rejects with what a server has against the token. */
    addresses(fresh: boolean): Promise<readonly Address[]>;
    /** Asks one server after the other, without waiting long for those before. `undefined`: nobody answered. */
    private ask;
    /** Gives what is to be taken over if this server's answer is the one that counts. Rejects: it is of no use now. */
    private askOne;
    private answered;
    private usual;
}
