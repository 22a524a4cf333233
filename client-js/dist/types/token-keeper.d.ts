/** Holds the token and fetches the next one ahead of time. */
export declare class TokenKeeper {
    private token;
    private readonly getToken;
    /** A new token is there, for the live session. */
    private readonly renewed;
    private readonly trouble;
    private timer;
    private renewing;
    private readonly backoff;
    constructor(token: string | undefined, getToken: (() => Promise<string> | string) | undefined, 
    /** A new token is there, for the live session. */
    renewed: (token: string) => void, trouble: (error: Error) => void);
    get current(): string | undefined;
    /** Whether a token that is refused can be replaced. */
    get renewable(): boolean;
    /** Fetches a token if there is none. */
    prepare(): Promise<void>;
    /** The token was refused. */
    drop(): void;
    /** The server says how long the token lives, in seconds. */
    expiresIn(seconds: number | undefined): void;
    /** Fetches a new token now, and again until there is one. */
    renew(): Promise<void>;
    /** The server did not take the new token for now. */
    retry(): void;
    stop(): void;
    private after;
}
