import { Backoff } from "./backoff.js";

/** The share of a token's life after which the next one is fetched. */
const REFRESH_AT = 0.8;

/** setTimeout's most: 2^31 - 1 milliseconds. */
const LONGEST_TIMER = 0x7fffffff;

/** Holds the token and fetches the next one ahead of time. */
export class TokenKeeper {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private renewing = false;
  private readonly backoff = new Backoff(1_000, 30_000);

  constructor(
    private token: string | undefined,
    private readonly getToken: (() => Promise<string> | string) | undefined,
    /** A new token is there, for the live session. */
    private readonly renewed: (token: string) => void,
    private readonly trouble: (error: Error) => void,
  ) {}

  get current(): string | undefined {
    return this.token;
  }

  /** Whether a token that is refused can be replaced. */
  get renewable(): boolean {
    return this.getToken !== undefined;
  }

  /** Fetches a token if there is none. */
  async prepare(): Promise<void> {
    if (this.token === undefined && this.getToken) this.token = await this.getToken();
  }

  /** The token was refused. */
  drop(): void {
    if (this.getToken) this.token = undefined;
  }

  /** The server says how long the token lives, in seconds. */
  expiresIn(seconds: number | undefined): void {
    this.backoff.reset();
    clearTimeout(this.timer);
    if (seconds !== undefined && this.getToken) this.after(seconds * 1000 * REFRESH_AT);
  }

  /** Fetches a new token now, and again until there is one. */
  async renew(): Promise<void> {
    clearTimeout(this.timer);
    if (!this.getToken || this.renewing) return;
    this.renewing = true;
    try {
      this.token = await this.getToken();
      this.renewed(this.token);
    } catch (error) {
      this.trouble(error instanceof Error ? error : new Error(String(error)));
      this.retry();
    } finally {
      this.renewing = false;
    }
  }

  /** The server did not take the new token for now. */
  retry(): void {
    this.after(this.backoff.next() + 500);
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private after(delay: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.renew(), Math.min(delay, LONGEST_TIMER));
  }
}
