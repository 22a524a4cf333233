import { XpushError } from "../index.js";

/** What a server says of a request that it did not do: RFC 9457, with the fields that XPUSH adds. */
interface Problem {
  readonly title?: string;
  readonly detail?: string;
  readonly code?: string;
  readonly retry?: boolean;
  /** Milliseconds. */
  readonly retry_after?: number;
  readonly channel?: string;
}

/** The server did not do what was asked over HTTP; nothing of it was done. `code` is one of `ErrorCode`. */
export class ApiError extends XpushError {
  /** The status of HTTP. */
  readonly status: number;
  /** For a person: what happened, and what to do. */
  readonly detail: string;
  /** The same may succeed later. */
  readonly retry: boolean;
  /** Milliseconds to wait first. */
  readonly retryAfter: number | undefined;
  readonly channel: string | undefined;

  constructor(status: number, problem: Problem) {
    const detail = problem.detail ?? problem.title ?? `the server answered ${status}`;
    super(problem.code ?? (status >= 500 ? "internal" : "malformed"), detail);
    this.name = "ApiError";
    this.status = status;
    this.detail = detail;
    this.retry = problem.retry ?? status >= 500;
    this.retryAfter = problem.retry_after;
    this.channel = problem.channel;
  }

  /** Whether who asks is not known any more: neither another try nor the same refresh token will help. */
  get signedOut(): boolean {
    return this.status === 401;
  }
}

/** Of an answer that was no success. What stands between may have answered in the server's place. */
export function problemOf(status: number, body: string): ApiError {
  try {
    const problem: unknown = JSON.parse(body);
    if (typeof problem === "object" && problem !== null) return new ApiError(status, problem);
  } catch {
    // A page of a proxy: its status says all there is to know.
  }
  return new ApiError(status, {});
}
