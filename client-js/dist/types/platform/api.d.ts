import type { Tokens } from "./tokens.js";
/** What a query may name; `undefined` leaves a name out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;
/** The HTTP API, in the name of who is signed in. */
export declare class Api {
    private readonly base;
    private readonly fetch;
    private readonly tokens;
    constructor(base: string, fetch: typeof globalThis.fetch, tokens: () => Tokens);
    get<T>(path: string, query?: Query): Promise<T>;
    post<T>(path: string, body?: object): Promise<T>;
    put<T>(path: string, body?: object): Promise<T>;
    /** `etag`: only if it is still what was read; else `precondition_failed`. */
    patch<T>(path: string, body: object, etag?: string): Promise<T>;
    delete(path: string, etag?: string): Promise<void>;
    /** Without a token: for who is about to get one. */
    open<T>(path: string, body: object): Promise<T>;
    /**
     * A token that the server does not take any more is replaced once; a connection that broke is tried once more. Done
     * twice, all of these do no more than done once: a POST by its key.
     */
    private authorized;
    private request;
}
/** One component of a path. Dots alone would be taken for a way up. */
export declare function part(name: string): string;
