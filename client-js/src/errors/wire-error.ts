import { XpushError } from "./xpush-error.js";

/** A wire could not be had, or broke before an answer came that can't safely be asked for again. */
export class WireError extends XpushError {
  constructor(message: string) {
    super("wire", message);
    this.name = "WireError";
  }
}
