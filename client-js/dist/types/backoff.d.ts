/** Exponential back-off with full jitter: a crowd that lost its server does not come back in step. */
export declare class Backoff {
    private readonly base;
    private readonly cap;
    private readonly random;
    private failures;
    constructor(base: number, cap: number, random?: () => number);
    /** Failures in a row. */
    get attempts(): number;
    /** Milliseconds to wait now: anywhere between nothing and a ceiling that doubles with every failure. */
    next(): number;
    reset(): void;
}
