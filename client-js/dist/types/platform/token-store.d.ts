/** What a login gave, as it is kept. */
export interface Session {
    readonly user: string;
    readonly app: string;
    readonly access: string;
    /** When the access token ends: milliseconds since 1970, by this machine's clock. */
    readonly accessUntil: number;
    readonly accessLife: number;
    readonly refresh: string;
    readonly device?: string;
}
/** Where a session is kept between two lives of a page. */
export interface TokenStore {
    /** Names the session among all tabs: who holds the lock of this name refreshes. */
    readonly name: string;
    read(): Session | undefined;
    /** `undefined`: signed out. */
    write(session: Session | undefined): void;
    /** Another tab wrote. */
    watch(changed: () => void): () => void;
}
/** Forgotten with the page. */
export declare class MemoryStore implements TokenStore {
    readonly name = "memory";
    private session;
    read(): Session | undefined;
    write(session: Session | undefined): void;
    watch(): () => void;
}
/** In `localStorage`: kept over reloads, and shared by the tabs of an origin. */
export declare class LocalStore implements TokenStore {
    readonly name: string;
    /** Where the browser keeps nothing: full, or told not to. */
    private unkept;
    constructor(name: string);
    read(): Session | undefined;
    write(session: Session | undefined): void;
    watch(changed: () => void): () => void;
}
