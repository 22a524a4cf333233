import { Emitter } from "@xpush/client";
import type { Friend, FriendState, Platform } from "@xpush/client/platform";
import { everyPage } from "./pages.js";

/** Friends, requests, and who is blocked. */
export class Contacts extends Emitter<{ change: undefined }> {
  private readonly known = new Map<string, Friend>();
  private round = 0;
  /** What came of the last reading: the list may be old. */
  problem: unknown;
  loaded = false;

  constructor(private readonly platform: Platform) {
    super();
  }

  /** In the order of their ids. */
  in(state: FriendState): readonly Friend[] {
    return [...this.known.values()].filter((friend) => friend.state === state);
  }

  stateOf(user: string): FriendState | undefined {
    return this.known.get(user)?.state;
  }

  async load(): Promise<void> {
    const round = ++this.round;
    try {
      const { friends } = this.platform;
      const [contacts, blocked] = await Promise.all([
        everyPage((page) => friends.list(page)),
        everyPage((page) => friends.blocked(page)),
      ]);
      if (round !== this.round) return;
      this.known.clear();
      for (const friend of [...contacts, ...blocked]) this.known.set(friend.user, friend);
      this.loaded = true;
      this.problem = undefined;
    } catch (error) {
      if (round !== this.round) return;
      this.problem = error;
    }
    this.emit("change", undefined);
  }

  async request(user: string): Promise<void> {
    await this.platform.friends.request(user);
    await this.load();
  }

  async remove(user: string): Promise<void> {
    await this.platform.friends.remove(user);
    await this.load();
  }

  async block(user: string): Promise<void> {
    await this.platform.friends.block(user);
    await this.load();
  }

  async unblock(user: string): Promise<void> {
    await this.platform.friends.unblock(user);
    await this.load();
  }
}
