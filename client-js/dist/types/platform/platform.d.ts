import { Client, Emitter, type ClientOptions } from "../index.js";
import { Channels } from "./channels.js";
import { Devices } from "./devices.js";
import { Friends } from "./friends.js";
import { Groups } from "./groups.js";
import { Inbox } from "./inbox.js";
import { Me } from "./me.js";
import { type Session, type TokenStore } from "./token-store.js";
import type { Credentials, DeviceInput, ProfileInput } from "./types.js";
import { Users } from "./users.js";
export interface PlatformOptions {
    /** The app whose users these are; absent: the server's default one. */
    app?: string;
    /** `true`: the tokens are kept in `localStorage`, over reloads and for all tabs. Absent: they go with the page. */
    remember?: boolean;
    /** Keeps the tokens elsewhere: a keychain, a file. */
    store?: TokenStore;
    /** For the session. */
    client?: Omit<ClientOptions, "token" | "getToken">;
    /** In the place of the global `fetch`. */
    fetch?: typeof globalThis.fetch;
}
export interface PlatformEvents {
    /** Somebody signed in. */
    login: Session;
    /**
     * The session is over. `requested`: by `logout`; `revoked`: user, device or login were taken back; `elsewhere`: the
     * app allows one session, and another began; the tokens are kept, and `client()` would throw the other out.
     */
    ended: {
        reason: "requested" | "revoked" | "elsewhere";
        error?: Error;
    };
}
/** An application's users, devices, contacts and channels, in the name of one user. */
export declare class Platform extends Emitter<PlatformEvents> {
    private readonly url;
    private readonly options;
    readonly me: Me;
    readonly devices: Devices;
    readonly users: Users;
    readonly friends: Friends;
    readonly groups: Groups;
    readonly channels: Channels;
    readonly inbox: Inbox;
    private readonly api;
    private readonly tokens;
    private live;
    /** `url`: the server, as in `https://push.example`; in a page, "" is its own server. */
    constructor(url: string, options?: PlatformOptions);
    /** Who is signed in. */
    get user(): string | undefined;
    /** The device that this login is of. */
    get device(): string | undefined;
    /** A new user, signed in. */
    register(user: Credentials & Partial<ProfileInput>, device?: DeviceInput): Promise<Session>;
    login(credentials: Credentials, device?: DeviceInput): Promise<Session>;
    /** Ends this login; `all`: every one of the user. The session ends at once, whether the server can be asked or not. */
    logout(options?: {
        all?: boolean;
    }): Promise<void>;
    /** A new pair of tokens now. It is done by itself whenever one is needed. */
    refresh(): Promise<void>;
    /** The realtime session of who is signed in: the same one until it is closed. */
    client(): Client;
    /** Ends the session of this page and listens no more; the login stays. */
    close(): void;
    private enter;
    private signedIn;
    private end;
    private closeClient;
}
