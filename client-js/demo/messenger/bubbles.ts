import type { Publication } from "@xpush/client";
import { byId, make } from "../dom.js";
import { Bubble, type BubbleEvents, type Said } from "./bubble.js";
import type { Receipts } from "./receipts.js";
import { DELETED, day, textOf } from "./words.js";

/** Messages that stay on the page; older ones come back by scrolling. */
const SHOWN = 600;

/** Milliseconds within which one person's messages stand together. */
const TOGETHER = 5 * 60_000;

/** How near to its end (pixels) a list follows what is new. */
const NEAR = 120;

/** What was said in a conversation, oldest first, with one's own unsent words at the end. */
export class Bubbles {
  private readonly list = byId<HTMLOListElement>("bubbles");
  private readonly scroll = byId("talk-scroll");
  private readonly jump = byId<HTMLButtonElement>("talk-jump");
  private readonly shown = new Map<number, Bubble>();
  private readonly pending = new Map<string, Bubble>();
  private readonly events: BubbleEvents;
  private order: number[] = [];
  /** The reader was at the end when it was looked at last. */
  private stuck = true;

  constructor(
    private readonly me: string,
    private readonly receipts: Receipts,
    events: Omit<BubbleEvents, "quoted" | "show">,
    /** Offsets above it are new to the reader. */
    private readonly readBefore: number,
    over: AbortSignal,
  ) {
    this.list.replaceChildren();
    this.jump.hidden = true;
    this.scroll.addEventListener("scroll", () => (this.stuck = this.atEnd), { signal: over });
    // A keyboard that comes up, or a line above the one that is written in, covers nothing that was in sight.
    const resize = new ResizeObserver(() => this.stuck && this.toEnd());
    resize.observe(this.scroll);
    over.addEventListener("abort", () => resize.disconnect());
    this.events = {
      ...events,
      quoted: (offset) => this.shown.get(offset)?.said,
      show: (offset) => this.show(offset),
    };
  }

  get isEmpty(): boolean {
    return this.list.childElementCount === 0;
  }

  /** Whether the newest message is in sight. */
  get atEnd(): boolean {
    return this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < NEAR;
  }

  /** A page of history, newest first. What is at the reader's eye stays there, unless it is the first page. */
  older(publications: readonly Publication[], isFirst: boolean): void {
    const before = this.scroll.scrollHeight - this.scroll.scrollTop;
    // A page of history is there to be read, and not to be read out.
    const spoken = this.list.parentElement!;
    spoken.setAttribute("aria-busy", "true");
    requestAnimationFrame(() => spoken.removeAttribute("aria-busy"));
    const deleted = new Set<number>();
    for (const publication of publications) {
      const gone = deletedBy(publication);
      if (gone !== undefined) deleted.add(gone);
    }
    // The oldest first: what is answered is there before its answers.
    for (const publication of [...publications].reverse()) this.insert(publication, deleted.has(publication.offset));
    for (const bubble of this.shown.values()) bubble.quoteAgain();
    this.scroll.scrollTop = isFirst ? this.scroll.scrollHeight : this.scroll.scrollHeight - before;
    const unread = isFirst ? this.list.querySelector<HTMLElement>(".unread-line") : null;
    // Only this list moves: `scrollIntoView` would move the page as well.
    if (unread) this.centre(unread, "instant");
  }

  /** The first that is shown. */
  get oldest(): number | undefined {
    return this.order[0];
  }

  /** One that was just said. Gives whether the oldest had to make room. */
  newer(publication: Publication): boolean {
    const gone = deletedBy(publication);
    if (gone !== undefined) {
      this.deleted(gone);
      return false;
    }
    const follow = this.atEnd;
    const mine = this.pending.get(publication.message_id);
    mine?.element.remove();
    this.pending.delete(publication.message_id);
    this.insert(publication, false)?.element.classList.toggle("fresh", !mine);
    const isFull = follow && this.order.length > SHOWN;
    while (isFull && this.order.length > SHOWN) this.drop(this.order[0]!);
    if (follow || mine) this.toEnd();
    else this.jump.hidden = false;
    return isFull;
  }

  /** One's own, before the server has it. */
  say(messageId: string, text: string, replyTo: number | undefined): Bubble {
    const said: Said = { offset: undefined, messageId, user: this.me, text, time: Date.now(), replyTo, deleted: false };
    const bubble = new Bubble(said, true, this.events);
    bubble.element.classList.add("fresh");
    this.pending.set(messageId, bubble);
    this.list.append(bubble.element);
    this.arrange(bubble.element);
    this.toEnd();
    return bubble;
  }

  /** Something that nobody said. */
  notice(text: string): void {
    const follow = this.atEnd;
    this.list.append(make("li", "notice", text));
    if (follow) this.toEnd();
  }

  /** Receipts came. */
  ticks(): void {
    for (const [offset, bubble] of this.shown) {
      if (bubble.mine) bubble.fate(this.receipts.fate(offset), this.receipts.words(offset));
    }
  }

  toEnd(): void {
    this.scroll.scrollTop = this.scroll.scrollHeight;
    this.jump.hidden = true;
  }

  private deleted(offset: number): void {
    const bubble = this.shown.get(offset);
    if (!bubble) return;
    const next = new Bubble({ ...bubble.said, deleted: true }, bubble.mine, this.events);
    bubble.element.replaceWith(next.element);
    this.shown.set(offset, next);
    this.arrange(next.element);
    this.after(next.element);
  }

  private show(offset: number): void {
    const element = this.shown.get(offset)?.element;
    if (!element) return;
    this.centre(element, "smooth");
    element.classList.remove("shine");
    requestAnimationFrame(() => element.classList.add("shine"));
  }

  private centre(element: HTMLElement, behavior: ScrollBehavior): void {
    const within = element.getBoundingClientRect().top - this.scroll.getBoundingClientRect().top;
    this.scroll.scrollBy({ top: within - this.scroll.clientHeight / 2, behavior });
  }

  private insert(publication: Publication, deleted: boolean): Bubble | undefined {
    const { offset, time, user, message_id } = publication;
    if (this.shown.has(offset) || deletedBy(publication) !== undefined) return undefined;
    const said: Said = {
      offset,
      messageId: message_id,
      user,
      text: textOf(publication),
      time,
      replyTo: publication.reply_to,
      deleted: deleted || publication.event === DELETED,
    };
    const bubble = new Bubble(said, user === this.me, this.events);
    let index = this.order.length;
    while (index > 0 && this.order[index - 1]! > offset) index--;
    const next = this.order[index];
    this.order.splice(index, 0, offset);
    this.shown.set(offset, bubble);
    const pending = this.pending.values().next().value?.element ?? null;
    this.list.insertBefore(bubble.element, next === undefined ? pending : this.shown.get(next)!.element);
    if (bubble.mine) bubble.fate(this.receipts.fate(offset), this.receipts.words(offset));
    this.arrange(bubble.element);
    this.after(bubble.element);
    return bubble;
  }

  private drop(offset: number): void {
    const element = this.shown.get(offset)?.element;
    const next = element?.nextElementSibling;
    this.order.shift();
    this.shown.delete(offset);
    element?.remove();
    if (next instanceof HTMLLIElement) this.arrange(next);
  }

  private after(element: HTMLLIElement): void {
    const next = element.nextElementSibling;
    if (next instanceof HTMLLIElement) this.arrange(next);
  }

  /** What stands right behind another of the same person shows no name; the first of a day shows the day. */
  private arrange(element: HTMLLIElement): void {
    const bubble = this.at(element);
    if (!bubble) return;
    const before = this.at(element.previousElementSibling);
    const { said } = bubble;
    const label = day(said.time);
    const sameDay = before !== undefined && day(before.said.time) === label;
    element.querySelector(".day")!.textContent = sameDay ? "" : label;
    const isFirstNew = said.offset !== undefined && !bubble.mine && said.offset > this.readBefore && (before?.said.offset ?? 0) <= this.readBefore;
    element.classList.toggle("unread-line", isFirstNew && this.readBefore > 0);
    const near = before !== undefined && said.time - before.said.time < TOGETHER;
    element.classList.toggle("follows", sameDay && near && before.said.user === said.user && !isFirstNew);
  }

  private at(element: Element | null): Bubble | undefined {
    const offset = (element as HTMLElement | null)?.dataset.offset;
    if (offset !== undefined) return this.shown.get(Number(offset));
    return [...this.pending.values()].find((bubble) => bubble.element === element);
  }
}

/** The offset of the message that this publication says is deleted. */
export function deletedBy({ event, data }: Publication): number | undefined {
  const offset = (data as { offset?: unknown } | null | undefined)?.offset;
  return event === DELETED && typeof offset === "number" ? offset : undefined;
}
