import { Emitter, type Client } from "../index.js";
import type { InboxCursor, InboxEvents } from "./types.js";
/** What happens to a user in channels that this device has not opened, by name. */
export declare class Inbox extends Emitter<InboxEvents> {
    private readonly client;
    private readonly user;
    private open;
    constructor(client: () => Client, user: () => string);
    /** Listens from now on, or from where another life of the application stopped. */
    subscribe(cursor?: InboxCursor): Promise<void>;
    /** Where to go on another time. */
    get cursor(): InboxCursor | undefined;
    close(): void;
    private take;
}
/** The channel of a user's inbox. An id that no channel can have in its name stands there in base64url. */
export declare function inboxOf(user: string): string;
