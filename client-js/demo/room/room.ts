import type { Channel, Client, Cursor, Publication } from "@xpush/client";
import { byId } from "../dom.js";
import { randomText } from "../storage.js";
import { shown, type Identity } from "./identity.js";
import type { Log } from "./log.js";
import type { Meter } from "./meter.js";
import type { People } from "./people.js";
import type { Typing } from "./typing.js";

/** Messages of a page of history. */
const PAGE = 50;

/** What the page shows a room on. */
export interface Stage {
  readonly me: Identity;
  readonly log: Log;
  readonly people: People;
  readonly typing: Typing;
  readonly meter: Meter;
}

/** One open room: its messages, its people, and who is writing. */
export class Room {
  private readonly talk: Channel;
  private readonly signs: Channel;
  private readonly older = byId<HTMLButtonElement>("older");
  private readonly offs: (() => void)[] = [];
  private next: Cursor | undefined;
  private closed = false;

  constructor(
    private readonly client: Client,
    readonly name: string,
    private readonly stage: Stage,
  ) {
    this.talk = client.channel(`room:${name}`);
    this.signs = client.channel(`typing:${name}`);
    stage.log.clear();
    stage.people.clear();
    stage.typing.clear();
    this.older.hidden = true;
    this.listen();
    this.talk.subscribe().catch((error: unknown) => this.problem(error));
    this.signs.subscribe().catch(() => {});
    void this.page();
  }

  close(): void {
    this.closed = true;
    for (const off of this.offs) off();
    void this.talk.unsubscribe().catch(() => {});
    void this.signs.unsubscribe().catch(() => {});
  }

  say(text: string): void {
    const { me, log, meter, typing } = this.stage;
    const messageId = randomText();
    log.say(messageId, text);
    typing.sent();
    meter.out();
    this.talk
      .publish({ text, name: me.name, author: me.author }, { messageId })
      .catch((error: unknown) => !this.closed && log.failed(messageId, reason(error)));
  }

  /** Tells the others that one is writing. */
  write(): void {
    this.signs.cast({ name: this.stage.me.name, author: this.stage.me.author }, { event: "typing" });
  }

  /** Tells the others one's name: the server knows sessions. */
  introduce(): void {
    const { name, author } = this.stage.me;
    const session = this.client.session;
    if (!session || this.closed) return;
    this.stage.people.named(session, name, author);
    this.signs.cast({ name, author, session }, { event: "name" });
  }

  /** The page of history before what is shown. */
  async page(): Promise<void> {
    this.older.disabled = true;
    try {
      const cursor = this.next;
      const page = await this.talk.history({ backward: true, limit: PAGE, ...(cursor && { cursor }) });
      if (this.closed) return;
      this.next = page.next;
      this.older.hidden = page.next === undefined;
      this.stage.log.prepend(page.publications, cursor !== undefined);
    } catch (error) {
      this.problem(error);
    } finally {
      this.older.disabled = false;
    }
  }

  private listen(): void {
    const { log, people, typing, meter, me } = this.stage;
    const { talk, signs, offs } = this;
    offs.push(
      talk.on("publication", (publication) => {
        meter.in();
        log.append(publication);
        typing.stopped(author(publication));
      }),
      talk.on("gap", ({ from, to }) => {
        if (to >= from) log.notice(`${to - from + 1} messages can't be had any more.`);
      }),
      talk.on("subscribed", ({ occupancy }) => {
        if (occupancy !== undefined) people.counted(occupancy);
        void this.whoIsHere();
        log.showEmpty();
      }),
      talk.on("unsubscribed", ({ reason }) => {
        if (reason === "revoked") log.notice("You have no right to read here any more.");
      }),
      talk.on("join", ({ member, occupancy }) => {
        people.joined(member, occupancy);
        // Not all at once: everybody here tells the newcomer their name.
        setTimeout(() => this.introduce(), Math.random() * Math.min(2000, occupancy * 50));
      }),
      talk.on("leave", ({ member, occupancy }) => people.left(member, occupancy)),
      talk.on("occupancy", ({ occupancy }) => people.counted(occupancy)),
      signs.on("subscribed", () => this.introduce()),
      signs.on("publication", (publication) => {
        const data = publication.data as { name?: unknown; author?: unknown; session?: unknown } | null;
        const who = author(publication);
        if (who === me.author) return;
        const name = shown(data?.name, "Somebody");
        if (publication.event === "typing") typing.seen(who, name);
        else if (publication.event === "name" && typeof data?.session === "string") people.named(data.session, name, who);
      }),
    );
  }

  private async whoIsHere(): Promise<void> {
    try {
      const { members, sessions } = await this.talk.presence();
      if (!this.closed) this.stage.people.all(members, sessions);
    } catch {
      // Not granted, or not here: the room works without a list.
    }
  }

  private problem(error: unknown): void {
    if (!this.closed) this.stage.log.notice(`This room can't be opened: ${reason(error)}`);
  }
}

function author(publication: Publication): string {
  return shown((publication.data as { author?: unknown } | null)?.author, publication.user ?? "backend");
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
