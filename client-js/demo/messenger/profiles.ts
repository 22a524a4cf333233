import { Emitter } from "@xpush/client";
import type { Platform, Profile } from "@xpush/client/platform";

/** Profiles that are kept; a page that stays open for weeks need not know everybody. */
const KEPT = 2_000;

/** What users are called. */
export class Profiles extends Emitter<{ change: string }> {
  private readonly known = new Map<string, Profile | undefined>();
  private readonly loading = new Map<string, Promise<void>>();

  constructor(private readonly platform: Platform) {
    super();
  }

  /** The name as far as it is known; when it is, `change` comes. */
  nameOf(user: string): string {
    if (!this.known.has(user)) void this.load(user);
    return this.known.get(user)?.name || user;
  }

  /** The name, once it is known. */
  async name(user: string): Promise<string> {
    this.nameOf(user);
    await this.loading.get(user);
    return this.nameOf(user);
  }

  statusOf(user: string): string {
    return this.known.get(user)?.status ?? "";
  }

  learn(profile: Profile): void {
    if (this.known.size >= KEPT) this.known.clear();
    this.known.set(profile.user, profile);
    this.emit("change", profile.user);
  }

  private load(user: string): Promise<void> {
    // Asked once: a user without a profile is called by its id.
    this.known.set(user, undefined);
    const loading = this.platform.users.get(user).then(
      (profile) => this.learn(profile),
      // Gone, or not for us to see.
      () => {},
    );
    this.loading.set(user, loading);
    return loading.finally(() => this.loading.delete(user));
  }
}
