import { XpushError } from "./xpush-error.js";
/**
 * The client is closed, by `close()` or because the server allows no return. `code` is `revoked` where the user, device
 * or login was taken back, `signed_in_elsewhere` where the app allows no second session; else `closed`.
 */
export declare class ClosedError extends XpushError {
    /** The close code of `docs/PROTOCOL.md`; 4000 for `close()`. */
    readonly closeCode: number;
    constructor(closeCode: number, reason: string);
}
