/** What every error of this library is. `code` tells them apart; `message` is for a person. */
export declare class XpushError extends Error {
    readonly code: string;
    constructor(code: string, message: string);
}
