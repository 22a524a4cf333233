/** Writes frames for a QUIC stream or datagram: each behind its length, a varint of RFC 9000, section 16. */
export declare function joinFrames(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer>;
/** Takes a stream's bytes as they come and gives its frames. */
export declare class FrameSplitter {
    private readonly limit;
    private buffer;
    private start;
    private end;
    /** Whether `buffer` is ours to write to, and not a chunk that was handed in. */
    private owned;
    /** `limit`: the longest frame that is taken, in bytes; a longer one is the end of the connection. */
    constructor(limit: number);
    /** Whether the bytes so far end with a frame's end. */
    get empty(): boolean;
    /** The frames that `chunk` completes. They are valid until the next call. */
    push(chunk: Uint8Array): Uint8Array[];
    private append;
}
