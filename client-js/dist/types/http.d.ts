import type * as wire from "./wire.js";
/** An answer that came whole, whatever its status. */
export interface HttpAnswer {
    status: number;
    body: string;
}
/** A request under way. */
export interface HttpRequest {
    /** Rejects when the network failed, the time was up or `cancel` was called. */
    readonly answer: Promise<HttpAnswer>;
    cancel(): void;
}
/** Reads the body of a refusal (RFC 9457). Throws where it is none, but a proxy's page. */
export declare function problem(body: string): wire.Error;
/**
 * One HTTP request, by `fetch` or, in browsers that lack it, XMLHttpRequest. A body goes as `text/plain` and
 * without cookies, so that no browser asks the server for permission first (CORS preflight).
 */
export declare function request(url: string, body: string | undefined, timeout: number): HttpRequest;
