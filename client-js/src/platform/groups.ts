import { part, type Api } from "./api.js";
import type { Group, Page, PageOptions } from "./types.js";

/** Lists of users that one keeps for oneself. */
export class Groups {
  constructor(
    private readonly api: Api,
    private readonly user: () => string,
  ) {}

  list(options: PageOptions = {}): Promise<Page<Group>> {
    return this.api.get(this.path(), { ...options });
  }

  create(name: string, users: readonly string[] = []): Promise<Group> {
    return this.api.post(this.path(), { name, users });
  }

  get(group: string): Promise<Group> {
    return this.api.get(this.path(group));
  }

  replace(group: string, name: string, users: readonly string[]): Promise<Group> {
    return this.api.put(this.path(group), { name, users });
  }

  delete(group: string): Promise<void> {
    return this.api.delete(this.path(group));
  }

  private path(group?: string): string {
    const path = `users/${part(this.user())}/groups`;
    return group === undefined ? path : `${path}/${part(group)}`;
  }
}
