import type * as wire from "../wire.js";
import { XpushError } from "./xpush-error.js";

/** The server refused a command. The session goes on. */
export class CommandError extends XpushError {
  declare readonly code: wire.ErrorCode;
  /** The same command may succeed later. */
  readonly retry: boolean;
  /** Milliseconds to wait first. */
  readonly retryAfter: number | undefined;
  readonly channel: string | undefined;

  constructor(error: wire.Error) {
    super(error.code, error.message);
    this.name = "CommandError";
    this.retry = error.retry;
    this.retryAfter = error.retry_after;
    this.channel = error.channel;
  }
}
