import { XpushError } from "./xpush-error.js";
/** A wire could not be had, or broke before an answer came that can't safely be asked for again. */
export declare class WireError extends XpushError {
    constructor(message: string);
}
