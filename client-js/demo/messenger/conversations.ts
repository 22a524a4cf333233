import { Emitter } from "@xpush/client";
import type { InboxEvents, MyChannel, Platform } from "@xpush/client/platform";
import { everyPage } from "./pages.js";
import { DELETED_TEXT, textOf } from "./words.js";

/** Milliseconds in which what was received is gathered before the server is told: one word for many messages. */
const GATHERED = 250;

/** One entry of the list. */
export interface Conversation extends Omit<MyChannel, "last" | "unread" | "read" | "top"> {
  /** Everything up to here was read, on whichever device. */
  read: number;
  /** The newest message's offset. */
  top: number;
  last: { offset: number; text: string; time: number; user: string | undefined } | undefined;
}

/** The channels of which one is a member, newest first, with what is unread. */
export class Conversations extends Emitter<{ change: undefined }> {
  private readonly known = new Map<string, Conversation>();
  private readonly reached = new Map<string, number>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private round = 0;
  loaded = false;
  problem: unknown;

  constructor(
    private readonly platform: Platform,
    private readonly me: string,
  ) {
    super();
  }

  get all(): readonly Conversation[] {
    const time = (one: Conversation): number => one.last?.time ?? one.created;
    return [...this.known.values()].sort((a, b) => Number(b.state === "invited") - Number(a.state === "invited") || time(b) - time(a));
  }

  get(channel: string): Conversation | undefined {
    return this.known.get(channel);
  }

  unread(one: Conversation): number {
    return one.state === "active" ? Math.max(0, one.top - one.read) : 1;
  }

  get unreadTotal(): number {
    return this.all.reduce((sum, one) => sum + (one.notify === "none" ? 0 : this.unread(one)), 0);
  }

  async load(): Promise<void> {
    const round = ++this.round;
    try {
      const channels = await everyPage((page) => this.platform.channels.list(page));
      if (round !== this.round) return;
      const before = new Map(this.known);
      this.known.clear();
      for (const channel of channels) this.take(channel, before.get(channel.channel));
      this.loaded = true;
      this.problem = undefined;
    } catch (error) {
      if (round !== this.round) return;
      this.problem = error;
    }
    this.emit("change", undefined);
  }

  /** A message came, wherever it was heard of. */
  said(channel: string, offset: number, user: string | undefined, text: string | undefined, time: number): void {
    const one = this.known.get(channel);
    if (!one) return void this.load();
    if (offset <= one.top) return;
    // Who writes has read what was there.
    if (user === this.me) one.read = offset;
    one.top = offset;
    if (text !== undefined) one.last = { offset, text, time, user };
    this.received(channel, offset);
    this.emit("change", undefined);
  }

  /** A message's words were taken away. */
  deleted(channel: string, offset: number): void {
    const one = this.known.get(channel);
    if (one?.last?.offset !== offset) return;
    one.last = { ...one.last, text: DELETED_TEXT };
    this.emit("change", undefined);
  }

  /** The inbox tells of a message in a channel that is not open. */
  told({ channel, offset, user, preview }: InboxEvents["message"]): void {
    this.said(channel, offset, user, preview ?? "New message", Date.now());
  }

  /** It was read up to here, on this device or another one. */
  wasRead(channel: string, offset: number): void {
    const one = this.known.get(channel);
    if (!one || offset <= one.read) return;
    // The message itself may be told later: then its text is news yet.
    one.read = offset;
    this.emit("change", undefined);
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private take(channel: MyChannel, before: Conversation | undefined): void {
    const { last, unread: _, read = 0, top = 0, ...rest } = channel;
    const newest = last && { offset: last.offset, text: textOf(last), time: last.time, user: last.user };
    // What was heard meanwhile is newer than the list.
    const isOld = before !== undefined && before.top > top;
    this.known.set(channel.channel, {
      ...rest,
      read: Math.max(read, before?.read ?? 0),
      top: isOld ? before.top : top,
      last: isOld ? before.last : newest,
    });
    if (top > read && channel.state === "active") this.received(channel.channel, top);
  }

  /** Tells the senders that it reached this device. */
  private received(channel: string, offset: number): void {
    this.reached.set(channel, Math.max(offset, this.reached.get(channel) ?? 0));
    this.timer ??= setTimeout(() => {
      this.timer = undefined;
      const client = this.platform.client();
      for (const [name, offset] of this.reached) {
        // Who has no receipts has no use for it.
        client.channel(name).markReceived(offset).catch(() => {});
      }
      this.reached.clear();
    }, GATHERED);
  }
}
