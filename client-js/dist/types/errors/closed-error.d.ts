import { XpushError } from "./xpush-error.js";
/** The client is closed, by `close()` or because the server allows no return. */
export declare class ClosedError extends XpushError {
    /** The close code of `docs/PROTOCOL.md`; 4000 for `close()`. */
    readonly closeCode: number;
    constructor(closeCode: number, reason: string);
}
