import type { Cursor, Publication } from "../index.js";
/** A JSON object of the application's own. */
export type Data = Readonly<Record<string, unknown>>;
/** A page of a list. */
export interface Page<T> {
    readonly items: readonly T[];
    /** Ask on with it. Absent: this was the last. */
    readonly next?: string;
}
export interface PageOptions {
    /** The server has a most of its own. */
    limit?: number;
    /** `next` of the page before. */
    cursor?: string;
}
/** Takes away a field's value where it is `null`. */
export type Patch<T> = {
    readonly [K in keyof T]?: T[K] | null;
};
/** A device, as who signs in tells of it. */
export interface DeviceInput {
    readonly device?: string;
    readonly name?: string;
    /** `web`, `android`, `ios`, … */
    readonly platform?: string;
    readonly app_version?: string;
    readonly locale?: string;
    readonly push?: {
        readonly kind: string;
        readonly token: string;
    };
}
export interface Device extends DeviceInput {
    readonly device: string;
    readonly created: number;
    /** As `created`: milliseconds since 1970. */
    readonly last_seen: number;
}
export interface Credentials {
    readonly user: string;
    readonly password: string;
}
export interface LoginAnswer {
    readonly user: string;
    readonly app: string;
    readonly access_token: string;
    readonly expires_in: number;
    readonly refresh_token: string;
    readonly refresh_expires_in: number;
    readonly device?: string;
}
/** What everybody who may see a user sees. */
export interface Profile {
    readonly user: string;
    readonly name?: string;
    readonly avatar?: string;
    readonly status?: string;
}
/** What a user sees of itself. */
export interface OwnProfile extends Profile {
    readonly created: number;
    readonly has_password: boolean;
    readonly locale?: string;
    readonly data?: Data;
    readonly last_seen?: number;
}
/** What of a profile may be changed. */
export interface ProfileInput {
    readonly name: string;
    readonly avatar: string;
    readonly locale: string;
    readonly status: string;
    readonly data: Data;
}
export type PresenceState = "online" | "away" | "offline";
export interface UserPresence {
    readonly user: string;
    readonly state: PresenceState;
    /** Milliseconds since 1970. */
    readonly last_seen?: number;
}
export type FriendState = "requested" | "incoming" | "friends" | "blocked";
export interface Friend {
    readonly user: string;
    readonly state: FriendState;
    readonly since: number;
}
/** A list of users that one keeps. */
export interface Group {
    readonly id: string;
    readonly name: string;
    readonly users: readonly string[];
}
export type Role = "owner" | "admin" | "member" | "guest";
export type MemberState = "active" | "invited" | "banned";
export type Notify = "all" | "mentions" | "none";
export interface ChannelInput {
    readonly channel?: string;
    /** A name is made up in it; `chat` if absent. */
    readonly namespace?: string;
    readonly title?: string;
    readonly topic?: string;
    readonly avatar?: string;
    readonly data?: Data;
    /** Everybody of the app may join. */
    readonly public?: boolean;
    readonly members?: readonly string[];
    /** As what they begin; absent: they are invited. */
    readonly state?: "active" | "invited";
}
/** A channel, and what one is in it. */
export interface ChannelInfo {
    readonly channel: string;
    readonly kind: "group" | "direct";
    readonly title?: string;
    readonly topic?: string;
    readonly avatar?: string;
    readonly data?: Data;
    readonly public: boolean;
    readonly creator?: string;
    readonly created: number;
    /** How many. */
    readonly members: number;
    /** Of a direct channel: the other. */
    readonly user?: string;
    /** Absent, as those below: one is no member. */
    readonly role?: Role;
    readonly state?: MemberState;
    readonly notify?: Notify;
    readonly muted_until?: number;
    /** Everything up to this offset was read. */
    readonly read?: number;
}
/** A channel in the list of one's own. Where one is invited only, there is no news. */
export interface MyChannel extends ChannelInfo {
    readonly role: Role;
    readonly state: MemberState;
    /** The newest message's offset. */
    readonly top?: number;
    readonly unread?: number;
    readonly last?: Publication;
}
export interface ChannelMember {
    readonly user: string;
    readonly role: Role;
    readonly state: MemberState;
    readonly joined: number;
    readonly data?: Data;
    /** Milliseconds since 1970. */
    readonly muted_until?: number;
    readonly notify?: Notify;
}
export interface MemberInput {
    readonly role: Role;
    readonly muted_until: number;
    readonly data: Data;
    readonly notify: Notify;
}
export interface Ban {
    readonly user: string;
    readonly since: number;
}
export interface MemberReceipt {
    readonly user: string;
    readonly read: number;
    /** By device. */
    readonly received: Readonly<Record<string, number>>;
}
/** What the server tells the inbox of a user; see `Inbox`. */
export interface InboxEvents {
    /** `preview`: the beginning of its text, where the app shows that. */
    message: {
        channel: string;
        offset: number;
        user?: string;
        event: string;
        preview?: string;
    };
    /** A message that names one. */
    mention: {
        channel: string;
        offset: number;
        user?: string;
        event: string;
        preview?: string;
    };
    invite: {
        channel: string;
        by?: string;
    };
    kick: {
        channel: string;
        by?: string;
    };
    ban: {
        channel: string;
        by?: string;
    };
    role: {
        channel: string;
        role: Role;
    };
    friend: {
        user: string;
        state: FriendState;
    };
    /** The user read on another device. */
    read: {
        channel: string;
        offset: number;
    };
    /** Events were lost: read the lists anew. */
    gap: undefined;
}
/** Where an inbox may go on another time. */
export type InboxCursor = Cursor;
