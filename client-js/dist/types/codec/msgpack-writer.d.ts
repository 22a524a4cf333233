/** Writes what JSON can say, and bytes, as MessagePack, in the shortest form of each value. */
export declare class MsgpackWriter {
    private bytes;
    private view;
    private at;
    write(value: unknown): Uint8Array<ArrayBuffer>;
    private value;
    private map;
    private number;
    private text;
    private binary;
    /** A length: within the first byte if below `tiny`, else behind `wide` (16 bits) or the next code (32 bits). */
    private head;
    private sized;
    private byte;
    private raw;
    /** Makes room for `size` bytes and tells where they go. */
    private room;
}
