import type { Channel, Cursor, Publication } from "@xpush/client";
import type { ChannelMember } from "@xpush/client/platform";
import { byId, reason } from "../dom.js";
import { randomText } from "../storage.js";
import { toast } from "../toast.js";
import type { Said } from "./bubble.js";
import { Bubbles, deletedBy } from "./bubbles.js";
import type { Answered } from "./composer.js";
import type { Conversation } from "./conversations.js";
import type { Desk } from "./desk.js";
import { confirmed } from "./dialogs.js";
import { everyPage } from "./pages.js";
import { Receipts } from "./receipts.js";
import { textOf } from "./words.js";
import type { Writers } from "./writers.js";

/** Messages of a page of history. */
const PAGE = 40;

/** How near to its beginning (pixels) a list asks for what is older. */
const NEAR = 200;

/** The open conversation: its messages, who is writing, and who has read what. */
export class Talk {
  private readonly channel: Channel;
  private readonly receipts: Receipts;
  private readonly bubbles: Bubbles;
  private readonly scroll = byId("talk-scroll");
  private readonly state = byId("talk-state");
  private readonly over = new AbortController();
  private readonly offs: (() => void)[] = [];
  private next: Cursor | undefined;
  private epoch = 0;
  private loading = false;
  private newest = 0;
  private marked: number;
  members: readonly ChannelMember[] = [];

  constructor(
    private readonly desk: Desk,
    private readonly opened: Conversation,
    private readonly writers: Writers,
    private readonly events: { reply(answered: Answered): void; membersChanged(): void; shut(why: string): void },
  ) {
    this.channel = desk.client.channel(opened.channel);
    this.marked = opened.read;
    this.receipts = new Receipts(desk.me);
    this.bubbles = new Bubbles(
      desk.me,
      this.receipts,
      {
        nameOf: (user) => this.nameOf(user),
        reply: (said) => this.reply(said),
        delete: (offset) => void this.delete(offset),
        mayDelete: ({ user }) => user === desk.me || this.mayManage,
      },
      opened.read,
      this.over.signal,
    );
    writers.clear();
    this.listen();
    this.channel.subscribe().catch((error: unknown) => this.problem(error));
    void this.history();
  }

  /** As the list has it now. */
  get conversation(): Conversation {
    return this.desk.conversations.get(this.opened.channel) ?? this.opened;
  }

  /** Whether one may act on other members and their messages. */
  get mayManage(): boolean {
    return this.conversation.kind === "group" && (this.conversation.role === "owner" || this.conversation.role === "admin");
  }

  close(): void {
    this.over.abort();
    for (const off of this.offs) off();
    this.writers.clear();
    void this.channel.unsubscribe().catch(() => {});
  }

  say(text: string, answered: Answered | undefined): void {
    const messageId = randomText();
    const bubble = this.bubbles.say(messageId, text, answered?.offset);
    this.state.textContent = "";
    const publish = (): void => {
      this.channel
        .publish({ text }, { messageId, ...(answered && { replyTo: answered.offset }) })
        .catch((error: unknown) => this.closed || bubble.failed(reason(error), publish));
    };
    publish();
  }

  /** Tells the others that one is writing. */
  typing(): void {
    this.channel.signal("typing");
  }

  /** What is in sight counts as read. */
  seen(): void {
    if (this.closed || document.visibilityState === "hidden" || !this.bubbles.atEnd || this.newest <= this.marked) return;
    const offset = (this.marked = this.newest);
    this.desk.conversations.wasRead(this.conversation.channel, offset);
    this.channel.markRead(offset).catch(() => {
      // Not lost: the next message in sight says it again.
      if (this.marked === offset) this.marked = offset - 1;
    });
  }

  async loadMembers(): Promise<void> {
    const { channel } = this.conversation;
    try {
      const [members, receipts] = await Promise.all([
        everyPage((page) => this.desk.platform.channels.members(channel, page)),
        // A namespace may have none.
        everyPage((page) => this.desk.platform.channels.receipts(channel, page)).catch(() => []),
      ]);
      if (this.closed) return;
      this.members = members;
      this.receipts.members(members.filter(({ state }) => state === "active").map(({ user }) => user));
      for (const { user, read, received } of receipts) {
        this.receipts.take({ user, read, received: Math.max(0, ...Object.values(received)) });
      }
      this.bubbles.ticks();
      this.events.membersChanged();
    } catch (error) {
      if (!this.closed) toast(`Who is here can't be read just now: ${reason(error)}`);
    }
  }

  private get closed(): boolean {
    return this.over.signal.aborted;
  }

  private nameOf(user: string | undefined): string {
    return user === undefined ? "XPUSH" : user === this.desk.me ? "You" : this.desk.profiles.nameOf(user);
  }

  private listen(): void {
    const { channel, offs, desk, opened } = this;
    offs.push(
      channel.on("publication", (publication) => this.heard(publication)),
      channel.on("gap", ({ from, to }) => {
        if (to >= from) this.bubbles.notice(`${to - from + 1} messages can't be had any more.`);
      }),
      channel.on("receipt", (receipt) => {
        this.receipts.take(receipt);
        this.bubbles.ticks();
      }),
      channel.on("signal", ({ event, user }) => {
        if (event === "typing" && user !== undefined && user !== desk.me) this.writers.seen(user);
      }),
      channel.on("join", ({ member }) => this.sighted(member.user)),
      channel.on("unsubscribed", ({ reason }) => {
        if (reason === "revoked") this.events.shut("You are no longer in this conversation.");
      }),
      channel.on("subscribed", () => void this.loadMembers()),
      channel.on("leave", ({ member }) => member.user !== undefined && void desk.presences.ask(member.user)),
    );
    const { signal } = this.over;
    this.scroll.addEventListener(
      "scroll",
      () => {
        if (this.scroll.scrollTop < NEAR && this.next) void this.history();
        if (this.bubbles.atEnd) byId("talk-jump").hidden = true;
        this.seen();
      },
      { signal },
    );
    document.addEventListener("visibilitychange", () => this.seen(), { signal });
    byId("talk-jump").addEventListener("click", () => this.bubbles.toEnd(), { signal });
    offs.push(desk.profiles.on("change", (user) => user === opened.user && this.events.membersChanged()));
  }

  private heard(publication: Publication): void {
    const { offset, user, time } = publication;
    this.newest = Math.max(this.newest, offset);
    const isFull = this.bubbles.newer(publication);
    // What made room comes back by scrolling.
    if (isFull) this.next = { epoch: this.epoch, offset: this.bubbles.oldest ?? offset };
    this.state.textContent = "";
    if (user !== undefined) {
      this.sighted(user, false);
      this.writers.stopped(user);
      // Who writes has read what stands before.
      this.receipts.take({ user, read: offset });
      this.bubbles.ticks();
    }
    const { conversations } = this.desk;
    const gone = deletedBy(publication);
    conversations.said(this.channel.name, offset, user, gone === undefined ? textOf(publication) : undefined, time);
    if (gone !== undefined) conversations.deleted(this.channel.name, gone);
    this.seen();
  }

  /** Who is here and was not in the list has just joined. */
  private sighted(user: string | undefined, came = true): void {
    if (user === undefined) return;
    if (came) void this.desk.presences.ask(user);
    const known = this.members.some((member) => member.user === user && member.state === "active");
    if (!known && this.members.length > 0) void this.loadMembers();
  }

  /** The page of history before what is shown. */
  private async history(): Promise<void> {
    if (this.loading) return;
    this.loading = true;
    const cursor = this.next;
    this.state.textContent = cursor ? "Loading older messages…" : "Loading…";
    try {
      const page = await this.channel.history({ backward: true, limit: PAGE, ...(cursor && { cursor }) });
      if (this.closed) return;
      this.next = page.next;
      this.epoch = page.top.epoch;
      this.newest = Math.max(this.newest, page.top.offset);
      this.bubbles.older(page.publications, cursor === undefined);
      this.state.textContent = page.next ? "" : this.bubbles.isEmpty ? "Nothing was said here yet. Say hello." : "This is where it began.";
      this.seen();
    } catch (error) {
      if (!this.closed) this.problem(error);
      return;
    } finally {
      this.loading = false;
    }
    // A page that fills no screen can't be scrolled.
    if (this.next && this.scroll.scrollHeight <= this.scroll.clientHeight) void this.history();
  }

  private reply(said: Said): void {
    if (said.offset !== undefined) this.events.reply({ offset: said.offset, who: this.nameOf(said.user), text: said.text });
  }

  private async delete(offset: number): Promise<void> {
    if (!(await confirmed("Delete this message for everybody?", "Delete"))) return;
    try {
      await this.desk.platform.channels.deleteMessage(this.conversation.channel, offset);
    } catch (error) {
      toast(`It was not deleted: ${reason(error)}`);
    }
  }

  private problem(error: unknown): void {
    this.state.textContent = `This conversation can't be opened just now: ${reason(error)}`;
  }
}
