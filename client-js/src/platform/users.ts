import { part, type Api } from "./api.js";
import type { Page, PageOptions, Profile, UserPresence } from "./types.js";

/** Other users, as far as the app and they themselves let one see. */
export class Users {
  constructor(private readonly api: Api) {}

  /** Those whose name (or id) begins with `text`. */
  search(text: string, options: PageOptions & { field?: "name" | "user" } = {}): Promise<Page<Profile>> {
    return this.api.get("users", { q: text, ...options });
  }

  get(user: string): Promise<Profile> {
    return this.api.get(`users/${part(user)}`);
  }

  presence(user: string): Promise<UserPresence> {
    return this.api.get(`users/${part(user)}/presence`);
  }
}
