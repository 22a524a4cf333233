import { type Api } from "./api.js";
import type { Ban, ChannelInfo, ChannelInput, ChannelMember, MemberInput, MemberReceipt, MyChannel, Page, PageOptions, Patch, Role } from "./types.js";
/** Channels that have members. To read and write in one: `platform.client().channel(name)`. */
export declare class Channels {
    private readonly api;
    private readonly user;
    constructor(api: Api, user: () => string);
    /** Those of which one is a member, or to which one is invited. */
    list(options?: PageOptions): Promise<Page<MyChannel>>;
    /** Who creates it owns it. */
    create(channel: ChannelInput): Promise<ChannelInfo>;
    /** The one channel of two users: the same from both sides, made if need be. */
    direct(other: string): Promise<ChannelInfo>;
    get(channel: string): Promise<ChannelInfo>;
    update(channel: string, changes: Patch<Omit<ChannelInput, "channel" | "namespace" | "members" | "state">>): Promise<ChannelInfo>;
    delete(channel: string): Promise<void>;
    members(channel: string, options?: PageOptions): Promise<Page<ChannelMember>>;
    /** `state: "active"`: in at once, without being asked. */
    invite(channel: string, user: string, options?: {
        role?: Role;
        state?: "active" | "invited";
    }): Promise<ChannelMember>;
    /** A public channel, or one that one is invited to. */
    join(channel: string): Promise<ChannelMember>;
    leave(channel: string): Promise<void>;
    kick(channel: string, user: string): Promise<void>;
    ban(channel: string, user: string): Promise<Ban>;
    unban(channel: string, user: string): Promise<void>;
    bans(channel: string, options?: PageOptions): Promise<Page<Ban>>;
    /** A muted member reads, and can't write, until then (milliseconds since 1970); `null`: again at once. */
    mute(channel: string, user: string, until: number | null): Promise<ChannelMember>;
    role(channel: string, user: string, role: Role): Promise<ChannelMember>;
    /** Role, mute and data of a member; of oneself also what one wants to be told of. */
    member(channel: string, user: string, changes: Patch<MemberInput>): Promise<ChannelMember>;
    /** How far each member has come. */
    receipts(channel: string, options?: PageOptions): Promise<Page<MemberReceipt>>;
    /** Takes a message's words away; its place stays. One's own, or any for an admin. */
    deleteMessage(channel: string, offset: number): Promise<void>;
}
