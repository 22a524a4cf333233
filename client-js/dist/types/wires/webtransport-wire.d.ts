import type { Codec, Encoded } from "../codec/codec.js";
import type { Wire, WireEvents } from "./wire.js";
/** One WebTransport session: a control stream of ours, the server's streams, and datagrams both ways. */
export declare class WebTransportWire implements Wire {
    private readonly codec;
    private readonly session;
    private readonly encoder;
    private events;
    private control;
    private datagrams;
    private datagramSize;
    private waiting;
    /** `hashes`: SHA-256 of the certificates to take where no authority signed them. */
    constructor(url: string, hashes: readonly Uint8Array<ArrayBuffer>[], codec: Codec, events: WireEvents);
    send(frame: Encoded): void;
    sendLossy(frame: Encoded): void;
    close(closeCode: number, reason: string): void;
    private open;
    private readStreams;
    private read;
    private readDatagrams;
    /** Hands on the frames that `chunk` completes. False: the wire is over. */
    private take;
    private flush;
    private bytes;
    private end;
}
