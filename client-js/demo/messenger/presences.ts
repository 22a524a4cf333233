import { Emitter } from "@xpush/client";
import type { Platform, UserPresence } from "@xpush/client/platform";

/** Milliseconds between two questions: the server tells changes in channels, not to lists of contacts. */
const EVERY = 15_000;

/** Users that are asked for in one round; those below in a long list stay as they were. */
const ASKED = 40;

/** Who is there. */
export class Presences extends Emitter<{ change: string }> {
  private readonly known = new Map<string, UserPresence>();
  private readonly watched = new Map<string, readonly string[]>();
  private readonly timer = setInterval(() => void this.look(), EVERY);

  constructor(private readonly platform: Platform) {
    super();
    document.addEventListener("visibilitychange", this.look);
  }

  of(user: string): UserPresence | undefined {
    return this.known.get(user);
  }

  /** These are in sight at that place of the page. New ones are asked for at once. */
  watch(place: string, users: readonly string[]): void {
    const before = new Set(this.watched.get(place));
    this.watched.set(place, users.slice(0, ASKED));
    for (const user of users.slice(0, ASKED)) if (!before.has(user) && !this.known.has(user)) void this.ask(user);
  }

  /** Something says that it may have changed. */
  async ask(user: string): Promise<void> {
    try {
      const presence = await this.platform.users.presence(user);
      const before = this.known.get(user);
      this.known.set(user, presence);
      if (before?.state !== presence.state || before.last_seen !== presence.last_seen) this.emit("change", user);
    } catch {
      // Not for us to see, or no network: it stays unknown.
      if (this.known.delete(user)) this.emit("change", user);
    }
  }

  stop(): void {
    clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.look);
  }

  private readonly look = (): void => {
    if (document.visibilityState === "hidden") return;
    for (const user of new Set([...this.watched.values()].flat())) void this.ask(user);
  };
}
