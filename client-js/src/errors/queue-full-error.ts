import { XpushError } from "./xpush-error.js";

/** More is waiting than a bounded queue holds: publish less, or wait for the promises of what was published. */
export class QueueFullError extends XpushError {
  readonly capacity: number;

  constructor(what: string, capacity: number) {
    super("queue_full", `${what}: ${capacity} are waiting already`);
    this.name = "QueueFullError";
    this.capacity = capacity;
  }
}
