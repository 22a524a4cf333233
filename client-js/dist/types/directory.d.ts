import { type WireKind } from "./wires/wire.js";
/** One wire and where it is. */
export interface Address {
    readonly kind: WireKind;
    readonly url: string;
    /** Certificates that WebTransport takes though no authority signed them. */
    readonly hashes: readonly Uint8Array<ArrayBuffer>[];
}
/** Asks a server which wires it has. */
export declare class Directory {
    private readonly base;
    private known;
    /** `base`: the server's URL, without `/v1/…`. */
    constructor(base: string);
    /** The wires, best first. `fresh`: ask again; certificates change and nodes move. */
    addresses(fresh: boolean): Promise<readonly Address[]>;
    private usual;
}
