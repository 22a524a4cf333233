import { type Api } from "./api.js";
import type { Friend, FriendState, Page, PageOptions } from "./types.js";
/** Friends, requests from both sides, and who is blocked. */
export declare class Friends {
    private readonly api;
    private readonly user;
    constructor(api: Api, user: () => string);
    list(options?: PageOptions & {
        state?: Exclude<FriendState, "blocked">;
    }): Promise<Page<Friend>>;
    /** Asks; if the other has asked already, both are friends. */
    request(user: string): Promise<Friend>;
    /** The same as `request`: to ask back is to accept. */
    accept(user: string): Promise<Friend>;
    /** Ends a friendship, takes a request back, or declines one. */
    remove(user: string): Promise<void>;
    blocked(options?: PageOptions): Promise<Page<Friend>>;
    /** The other can't write to one, nor see whether one is there. */
    block(user: string): Promise<Friend>;
    unblock(user: string): Promise<void>;
    private path;
}
