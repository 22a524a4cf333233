import { part, type Api } from "./api.js";
import type { Friend, FriendState, Page, PageOptions } from "./types.js";

/** Friends, requests from both sides, and who is blocked. */
export class Friends {
  constructor(
    private readonly api: Api,
    private readonly user: () => string,
  ) {}

  list(options: PageOptions & { state?: Exclude<FriendState, "blocked"> } = {}): Promise<Page<Friend>> {
    return this.api.get(this.path("friends"), { ...options });
  }

  /** Asks; if the other has asked already, both are friends. */
  request(user: string): Promise<Friend> {
    return this.api.put(this.path("friends", user));
  }

  /** The same as `request`: to ask back is to accept. */
  accept(user: string): Promise<Friend> {
    return this.request(user);
  }

  /** Ends a friendship, takes a request back, or declines one. */
  remove(user: string): Promise<void> {
    return this.api.delete(this.path("friends", user));
  }

  blocked(options: PageOptions = {}): Promise<Page<Friend>> {
    return this.api.get(this.path("blocks"), { ...options });
  }

  /** The other can't write to one, nor see whether one is there. */
  block(user: string): Promise<Friend> {
    return this.api.put(this.path("blocks", user));
  }

  unblock(user: string): Promise<void> {
    return this.api.delete(this.path("blocks", user));
  }

  private path(kind: "friends" | "blocks", other?: string): string {
    const path = `users/${part(this.user())}/${kind}`;
    return other === undefined ? path : `${path}/${part(other)}`;
  }
}
