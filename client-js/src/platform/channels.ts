import { part, type Api } from "./api.js";
import type {
  Ban,
  ChannelInfo,
  ChannelInput,
  ChannelMember,
  MemberInput,
  MemberReceipt,
  MyChannel,
  Page,
  PageOptions,
  Patch,
  Role,
} from "./types.js";

/** Channels that have members. To read and write in one: `platform.client().channel(name)`. */
export class Channels {
  constructor(
    private readonly api: Api,
    private readonly user: () => string,
  ) {}

  /** Those of which one is a member, or to which one is invited. */
  list(options: PageOptions = {}): Promise<Page<MyChannel>> {
    return this.api.get(`users/${part(this.user())}/channels`, { ...options });
  }

  /** Who creates it owns it. */
  create(channel: ChannelInput): Promise<ChannelInfo> {
    return this.api.post("channels", channel);
  }

  /** The one channel of two users: the same from both sides, made if need be. */
  direct(other: string): Promise<ChannelInfo> {
    return this.api.put(`users/${part(this.user())}/direct/${part(other)}`);
  }

  get(channel: string): Promise<ChannelInfo> {
    return this.api.get(path(channel));
  }

  update(channel: string, changes: Patch<Omit<ChannelInput, "channel" | "namespace" | "members" | "state">>): Promise<ChannelInfo> {
    return this.api.patch(path(channel), changes);
  }

  delete(channel: string): Promise<void> {
    return this.api.delete(path(channel));
  }

  members(channel: string, options: PageOptions = {}): Promise<Page<ChannelMember>> {
    return this.api.get(path(channel, "members"), { ...options });
  }

  /** `state: "active"`: in at once, without being asked. */
  invite(channel: string, user: string, options: { role?: Role; state?: "active" | "invited" } = {}): Promise<ChannelMember> {
    return this.api.put(path(channel, "members", user), options);
  }

  /** A public channel, or one that one is invited to. */
  join(channel: string): Promise<ChannelMember> {
    return this.api.post(path(channel, "join"));
  }

  leave(channel: string): Promise<void> {
    return this.api.delete(path(channel, "members", this.user()));
  }

  kick(channel: string, user: string): Promise<void> {
    return this.api.delete(path(channel, "members", user));
  }

  ban(channel: string, user: string): Promise<Ban> {
    return this.api.put(path(channel, "bans", user));
  }

  unban(channel: string, user: string): Promise<void> {
    return this.api.delete(path(channel, "bans", user));
  }

  bans(channel: string, options: PageOptions = {}): Promise<Page<Ban>> {
    return this.api.get(path(channel, "bans"), { ...options });
  }

  /** A muted member reads, and can't write, until then (milliseconds since 1970); `null`: again at once. */
  mute(channel: string, user: string, until: number | null): Promise<ChannelMember> {
    return this.member(channel, user, { muted_until: until });
  }

  role(channel: string, user: string, role: Role): Promise<ChannelMember> {
    return this.member(channel, user, { role });
  }

  /** Role, mute and data of a member; of oneself also what one wants to be told of. */
  member(channel: string, user: string, changes: Patch<MemberInput>): Promise<ChannelMember> {
    return this.api.patch(path(channel, "members", user), changes);
  }

  /** How far each member has come. */
  receipts(channel: string, options: PageOptions = {}): Promise<Page<MemberReceipt>> {
    return this.api.get(path(channel, "receipts"), { ...options });
  }

  /** Takes a message's words away; its place stays. One's own, or any for an admin. */
  deleteMessage(channel: string, offset: number): Promise<void> {
    return this.api.delete(path(channel, "messages", String(offset)));
  }
}

function path(channel: string, ...rest: readonly string[]): string {
  return ["channels", channel, ...rest].map(part).join("/");
}
