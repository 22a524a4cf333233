import { ApiError } from "./api-error.js";
import type { Session, TokenStore } from "./token-store.js";
import type { LoginAnswer } from "./types.js";
/** Keeps the tokens of one login, and has at most one refresh under way: a refresh token is good for one use. */
export declare class Tokens {
    private readonly store;
    /** Asks the server for the next pair. */
    private readonly exchange;
    /** Nobody is signed in any more: the server said so, or another tab signed out. */
    private readonly ended;
    private refreshing;
    /** Who was signed in when it was looked at last. */
    private user;
    private readonly unwatch;
    constructor(store: TokenStore, 
    /** Asks the server for the next pair. */
    exchange: (refresh: string) => Promise<LoginAnswer>, 
    /** Nobody is signed in any more: the server said so, or another tab signed out. */
    ended: (error: ApiError) => void);
    get session(): Session | undefined;
    take(answer: LoginAnswer): Session;
    forget(): void;
    stop(): void;
    /** An access token that lives yet a while. `stale`: one that the server did not take, or that is to be replaced. */
    access(stale?: string): Promise<string>;
    /** The next pair, now. Who asks while one is under way gets that one. */
    refresh(stale?: string | undefined): Promise<Session>;
    /** One at a time over all tabs, where the browser can say so: else the second would show a used token. */
    private alone;
    private next;
}
