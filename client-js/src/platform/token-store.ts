/** What a login gave, as it is kept. */
export interface Session {
  readonly user: string;
  readonly app: string;
  readonly access: string;
  /** When the access token ends: milliseconds since 1970, by this machine's clock. */
  readonly accessUntil: number;
  readonly accessLife: number;
  readonly refresh: string;
  readonly device?: string;
}

/** Where a session is kept between two lives of a page. */
export interface TokenStore {
  /** Names the session among all tabs: who holds the lock of this name refreshes. */
  readonly name: string;
  read(): Session | undefined;
  /** `undefined`: signed out. */
  write(session: Session | undefined): void;
  /** Another tab wrote. */
  watch(changed: () => void): () => void;
}

/** Forgotten with the page. */
export class MemoryStore implements TokenStore {
  readonly name = "memory";
  private session: Session | undefined;

  read(): Session | undefined {
    return this.session;
  }

  write(session: Session | undefined): void {
    this.session = session;
  }

  watch(): () => void {
    return () => {};
  }
}

/** In `localStorage`: kept over reloads, and shared by the tabs of an origin. */
export class LocalStore implements TokenStore {
  /** Where the browser keeps nothing: full, or told not to. */
  private unkept: Session | undefined;

  constructor(readonly name: string) {}

  read(): Session | undefined {
    if (this.unkept) return this.unkept;
    try {
      const session = JSON.parse(localStorage.getItem(this.name) ?? "null") as Session | null;
      return session && typeof session.refresh === "string" ? session : undefined;
    } catch {
      return undefined;
    }
  }

  write(session: Session | undefined): void {
    this.unkept = undefined;
    try {
      if (session) localStorage.setItem(this.name, JSON.stringify(session));
      else localStorage.removeItem(this.name);
    } catch {
      this.unkept = session;
    }
  }

  watch(changed: () => void): () => void {
    const listener = (event: StorageEvent): void => {
      if (event.key === this.name || event.key === null) changed();
    };
    addEventListener("storage", listener);
    return () => removeEventListener("storage", listener);
  }
}
