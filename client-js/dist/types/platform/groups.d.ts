import { type Api } from "./api.js";
import type { Group, Page, PageOptions } from "./types.js";
/** Lists of users that one keeps for oneself. */
export declare class Groups {
    private readonly api;
    private readonly user;
    constructor(api: Api, user: () => string);
    list(options?: PageOptions): Promise<Page<Group>>;
    create(name: string, users?: readonly string[]): Promise<Group>;
    get(group: string): Promise<Group>;
    replace(group: string, name: string, users: readonly string[]): Promise<Group>;
    delete(group: string): Promise<void>;
    private path;
}
