import { XpushError } from "./xpush-error.js";
/** More is waiting than a bounded queue holds: publish less, or wait for the promises of what was published. */
export declare class QueueFullError extends XpushError {
    readonly capacity: number;
    constructor(what: string, capacity: number);
}
