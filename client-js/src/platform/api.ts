import { ApiError, problemOf } from "./api-error.js";
import type { Tokens } from "./tokens.js";

/** Milliseconds a server has to answer. */
const TIMEOUT = 20_000;

/** What a query may name; `undefined` leaves a name out. */
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** The HTTP API, in the name of who is signed in. */
export class Api {
  constructor(
    private readonly base: string,
    private readonly fetch: typeof globalThis.fetch,
    private readonly tokens: () => Tokens,
  ) {}

  get<T>(path: string, query: Query = {}): Promise<T> {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) search.set(name, String(value));
    return this.authorized("GET", search.size > 0 ? `${path}?${search}` : path);
  }

  post<T>(path: string, body: object = {}): Promise<T> {
    return this.authorized("POST", path, body);
  }

  put<T>(path: string, body: object = {}): Promise<T> {
    return this.authorized("PUT", path, body);
  }

  /** `etag`: only if it is still what was read; else `precondition_failed`. */
  patch<T>(path: string, body: object, etag?: string): Promise<T> {
    return this.authorized("PATCH", path, body, etag);
  }

  delete(path: string, etag?: string): Promise<void> {
    return this.authorized("DELETE", path, undefined, etag);
  }

  /** Without a token: for who is about to get one. */
  open<T>(path: string, body: object): Promise<T> {
    return this.request("POST", path, body, {});
  }

  /**
   * A token that the server does not take any more is replaced once; a connection that broke is tried once more. Done
   * twice, all of these do no more than done once: a POST by its key.
   */
  private async authorized<T>(method: string, path: string, body?: object, etag?: string): Promise<T> {
    let access = await this.tokens().access();
    const key: Record<string, string> = method === "POST" ? { "idempotency-key": randomKey() } : {};
    const attempt = (): Promise<T> =>
      this.request<T>(method, path, body, {
        authorization: `Bearer ${access}`,
        ...key,
        ...(etag !== undefined && { "if-match": etag }),
      });
    try {
      return await attempt();
    } catch (error) {
      if (error instanceof ApiError) {
        if (!error.signedOut || error.code === "invalid_credentials") throw error;
        access = await this.tokens().access(access);
      } else if (!(error instanceof TypeError)) throw error;
      return attempt();
    }
  }

  private async request<T>(method: string, path: string, body: object | undefined, headers: Record<string, string>): Promise<T> {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(new Error("no answer came in time")), TIMEOUT);
    try {
      const response = await this.fetch(`${this.base}/v1/${path}`, {
        method,
        cache: "no-store",
        credentials: "omit",
        signal: abort.signal,
        headers: { accept: "application/json", ...headers, ...(body && { "content-type": "application/json" }) },
        ...(body && { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw problemOf(response.status, text);
      return (text ? JSON.parse(text) : undefined) as T;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** 128 random bits. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One component of a path. Dots alone would be taken for a way up. */
export function part(name: string): string {
  return encodeURIComponent(name).replace(/^\.+$/, (dots) => "%2E".repeat(dots.length));
}
