import { ApiError } from "./api-error.js";
import type { Session, TokenStore } from "./token-store.js";
import type { LoginAnswer } from "./types.js";

/** The share of a token's life that must be left of it. The core asks for the next one at four fifths. */
const MARGIN = 0.25;

/** Keeps the tokens of one login, and has at most one refresh under way: a refresh token is good for one use. */
export class Tokens {
  private refreshing: Promise<Session> | undefined;
  /** Who was signed in when it was looked at last. */
  private user: string | undefined;
  private readonly unwatch: () => void;

  constructor(
    private readonly store: TokenStore,
    /** Asks the server for the next pair. */
    private readonly exchange: (refresh: string) => Promise<LoginAnswer>,
    /** Nobody is signed in any more: the server said so, or another tab signed out. */
    private readonly ended: (error: ApiError) => void,
  ) {
    this.user = store.read()?.user;
    this.unwatch = store.watch(() => {
      const before = this.user;
      this.user = this.session?.user;
      if (before !== undefined && this.user !== before) {
        this.ended(new ApiError(401, { code: "unauthenticated", detail: "signed out in another tab" }));
      }
    });
  }

  get session(): Session | undefined {
    return this.store.read();
  }

  take(answer: LoginAnswer): Session {
    const session: Session = {
      user: answer.user,
      app: answer.app,
      access: answer.access_token,
      accessUntil: Date.now() + answer.expires_in * 1000,
      accessLife: answer.expires_in * 1000,
      refresh: answer.refresh_token,
      ...(answer.device !== undefined && { device: answer.device }),
    };
    this.user = session.user;
    this.store.write(session);
    return session;
  }

  forget(): void {
    this.user = undefined;
    this.store.write(undefined);
  }

  stop(): void {
    this.unwatch();
  }

  /** An access token that lives yet a while. `stale`: one that the server did not take, or that is to be replaced. */
  async access(stale?: string): Promise<string> {
    const { session } = this;
    if (!session) throw new ApiError(401, { code: "unauthenticated", detail: "nobody is signed in" });
    if (good(session, stale)) return session.access;
    return (await this.refresh(stale)).access;
  }

  /** The next pair, now. Who asks while one is under way gets that one. */
  refresh(stale = this.session?.access): Promise<Session> {
    this.refreshing ??= this.alone(() => this.next(stale)).finally(() => (this.refreshing = undefined));
    return this.refreshing;
  }

  /** One at a time over all tabs, where the browser can say so: else the second would show a used token. */
  private alone<T>(task: () => Promise<T>): Promise<T> {
    const locks = typeof navigator === "undefined" ? undefined : (navigator as { locks?: LockManager }).locks;
    return locks && this.store.name !== "memory" ? locks.request(`${this.store.name}:refresh`, task) : task();
  }

  private async next(stale: string | undefined): Promise<Session> {
    // Another tab may have been quicker while this one waited for the lock.
    const { session } = this;
    if (!session) throw new ApiError(401, { code: "unauthenticated", detail: "nobody is signed in" });
    if (good(session, stale)) return session;
    try {
      const answer = await this.exchange(session.refresh);
      // Signed out meanwhile: what came belongs to nobody.
      if (this.session?.refresh !== session.refresh) throw new ApiError(401, { code: "unauthenticated" });
      return this.take(answer);
    } catch (error) {
      if (!(error instanceof ApiError) || !error.signedOut) throw error;
      // Without locks, the other tab's refresh may have come first: its token is the one that counts.
      const now = this.session;
      if (now && now.refresh !== session.refresh) return now;
      if (now) {
        this.forget();
        this.ended(error);
      }
      throw error;
    }
  }
}

function good(session: Session, stale: string | undefined): boolean {
  return session.access !== stale && session.accessUntil - Date.now() > session.accessLife * MARGIN;
}
