import type * as wire from "./wire.js";
/** What a message carries, on this side of the wire: bytes are bytes, whatever the codec. */
type Bytes<T> = Omit<T, "binary"> & {
    binary?: Uint8Array;
};
/** A message, in its place in the channel. */
export type Publication = Bytes<wire.Publication>;
/** A private message. */
export type Message = Bytes<wire.Message>;
/** One page of a channel's log. */
export type HistoryPage = Omit<wire.HistoryPage, "id" | "publications"> & {
    publications: Publication[];
};
/** Who is in a channel. */
export type PresenceList = Omit<wire.PresenceList, "id">;
/** The two fields of a frame that hold `data`: bytes as `binary`, all else as JSON. */
export declare function payload(data: unknown): {
    data: unknown;
} | {
    binary: Uint8Array;
};
export {};
