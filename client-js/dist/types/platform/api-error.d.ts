import { XpushError } from "../index.js";
/** What a server says of a request that it did not do: RFC 9457, with the fields that XPUSH adds. */
interface Problem {
    readonly title?: string;
    readonly detail?: string;
    readonly code?: string;
    readonly retry?: boolean;
    /** Milliseconds. */
    readonly retry_after?: number;
    readonly channel?: string;
}
/** The server did not do what was asked over HTTP; nothing of it was done. `code` is one of `ErrorCode`. */
export declare class ApiError extends XpushError {
    /** The status of HTTP. */
    readonly status: number;
    /** For a person: what happened, and what to do. */
    readonly detail: string;
    /** The same may succeed later. */
    readonly retry: boolean;
    /** Milliseconds to wait first. */
    readonly retryAfter: number | undefined;
    readonly channel: string | undefined;
    constructor(status: number, problem: Problem);
    /** Whether who asks is not known any more: neither another try nor the same refresh token will help. */
    get signedOut(): boolean;
}
/** Of an answer that was no success. What stands between may have answered in the server's place. */
export declare function problemOf(status: number, body: string): ApiError;
export {};
