import { type Api } from "./api.js";
import type { OwnProfile, Patch, ProfileInput } from "./types.js";
/** Who is signed in. */
export declare class Me {
    private readonly api;
    private readonly user;
    constructor(api: Api, user: () => string);
    profile(): Promise<OwnProfile>;
    /** Changes what is named; `null` takes a field away. */
    update(changes: Patch<ProfileInput>): Promise<OwnProfile>;
    /** The other logins end with it. */
    password(current: string, next: string): Promise<void>;
    /** Everything that the server has of this user. */
    export(): Promise<unknown>;
    /** Deletes the user, with all that is its own, for good. */
    delete(): Promise<void>;
    private path;
}
