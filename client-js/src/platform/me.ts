import { part, type Api } from "./api.js";
import type { OwnProfile, Patch, ProfileInput } from "./types.js";

/** Who is signed in. */
export class Me {
  constructor(
    private readonly api: Api,
    private readonly user: () => string,
  ) {}

  profile(): Promise<OwnProfile> {
    return this.api.get(this.path());
  }

  /** Changes what is named; `null` takes a field away. */
  update(changes: Patch<ProfileInput>): Promise<OwnProfile> {
    return this.api.patch(this.path(), changes);
  }

  /** The other logins end with it. */
  password(current: string, next: string): Promise<void> {
    return this.api.put(`${this.path()}/password`, { old: current, new: next });
  }

  /** Everything that the server has of this user. */
  export(): Promise<unknown> {
    return this.api.get(`${this.path()}/export`);
  }

  /** Deletes the user, with all that is its own, for good. */
  delete(): Promise<void> {
    return this.api.delete(this.path());
  }

  private path(): string {
    return `users/${part(this.user())}`;
  }
}
