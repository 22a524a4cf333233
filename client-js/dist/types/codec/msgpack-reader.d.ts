/** Reads one MessagePack value. 64-bit integers become numbers: offsets and times stay below 2^53. */
export declare class MsgpackReader {
    private readonly bytes;
    private readonly view;
    private at;
    constructor(bytes: Uint8Array);
    /** The value. Throws where bytes are missing, left over or no MessagePack. */
    read(): unknown;
    private value;
    private unsigned;
    private map;
    private array;
    private text;
    private raw;
    private take;
}
