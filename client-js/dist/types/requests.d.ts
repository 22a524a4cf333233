import type * as wire from "./wire.js";
/** Questions that may wait for their answers at once. */
export declare const REQUEST_CAPACITY = 1024;
/** Commands other than publishes, each until its answer. */
export declare class Requests {
    private readonly entries;
    private transmit;
    ask(id: number, frame: wire.ClientFrame, repeatable: boolean): Promise<wire.ServerFrame>;
    /** A wire is live: what is open goes out. */
    attach(transmit: (frame: wire.ClientFrame) => void): void;
    /** The wire is gone, and with it the answers to what was asked there. */
    detach(): void;
    answered(id: number, frame: wire.ServerFrame): boolean;
    refused(error: wire.Error): boolean;
    close(error: Error): void;
    private write;
}
