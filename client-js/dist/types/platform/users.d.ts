import { type Api } from "./api.js";
import type { Page, PageOptions, Profile, UserPresence } from "./types.js";
/** Other users, as far as the app and they themselves let one see. */
export declare class Users {
    private readonly api;
    constructor(api: Api);
    /** Those whose name (or id) begins with `text`. */
    search(text: string, options?: PageOptions & {
        field?: "name" | "user";
    }): Promise<Page<Profile>>;
    get(user: string): Promise<Profile>;
    presence(user: string): Promise<UserPresence>;
}
