import type { Publication } from "@xpush/client";
import { avatar, byId, make } from "../dom.js";
import { shown, type Identity } from "./identity.js";

/** Messages that stay on the page; older ones are a click away. */
const SHOWN = 500;

/** Milliseconds after which a person's next message shows their name again. */
const TOGETHER = 5 * 60_000;

/** How near to its end (pixels) a log follows what is new. */
const NEAR = 120;

interface Line {
  readonly element: HTMLLIElement;
  readonly author: string;
  readonly time: number;
}

/** What was said in the room, oldest first, with one's own unsent words at the end. */
export class Log {
  private readonly list = byId<HTMLOListElement>("log");
  private readonly scroll = byId("scroll");
  private readonly jump = byId<HTMLButtonElement>("jump");
  private readonly empty = byId("empty");
  private readonly lines = new Map<number, Line>();
  private readonly pending = new Map<string, Line>();
  private order: number[] = [];

  constructor(private readonly me: Identity) {
    this.jump.addEventListener("click", () => this.toEnd());
    this.scroll.addEventListener("scroll", () => {
      if (this.atEnd) this.jump.hidden = true;
    });
  }

  /** Another room. */
  clear(): void {
    this.list.replaceChildren();
    this.lines.clear();
    this.pending.clear();
    this.order = [];
    this.jump.hidden = true;
    this.empty.hidden = true;
  }

  /** Older ones, newest first, as a page of history has them. What is at the reader's eye stays there. */
  prepend(publications: readonly Publication[], keepPlace: boolean): void {
    const before = this.scroll.scrollHeight - this.scroll.scrollTop;
    for (const publication of publications) this.insert(publication, false);
    if (keepPlace) this.scroll.scrollTop = this.scroll.scrollHeight - before;
    else this.toEnd();
    this.showEmpty();
  }

  /** One that was just said. */
  append(publication: Publication): void {
    const follow = this.atEnd;
    const mine = this.pending.get(publication.message_id);
    if (mine) {
      mine.element.remove();
      this.pending.delete(publication.message_id);
    }
    this.insert(publication, !mine);
    while (follow && this.order.length > SHOWN) this.remove(this.order[0]!);
    this.follow(follow);
    this.showEmpty();
  }

  /** One's own, before the server has it. */
  say(id: string, text: string): void {
    const line = this.line(this.me.author, this.me.name, text, Date.now(), undefined);
    line.element.classList.add("pending", "fresh");
    this.pending.set(id, line);
    this.list.append(line.element);
    this.group(line.element);
    this.toEnd();
    this.showEmpty();
  }

  /** It did not arrive, and won't. */
  failed(id: string, reason: string): void {
    const line = this.pending.get(id);
    if (!line) return;
    line.element.classList.replace("pending", "failed");
    line.element.querySelector(".body")?.append(make("span", "status", `Not sent: ${reason}`));
  }

  /** Something that nobody said. */
  notice(text: string): void {
    const follow = this.atEnd;
    this.list.append(make("li", "notice", text));
    this.follow(follow);
  }

  showEmpty(): void {
    this.empty.hidden = this.list.childElementCount > 0;
  }

  private get atEnd(): boolean {
    return this.scroll.scrollHeight - this.scroll.scrollTop - this.scroll.clientHeight < NEAR;
  }

  private toEnd(): void {
    this.scroll.scrollTop = this.scroll.scrollHeight;
    this.jump.hidden = true;
  }

  private follow(follow: boolean): void {
    if (follow) this.toEnd();
    else this.jump.hidden = false;
  }

  private insert(publication: Publication, fresh: boolean): void {
    const { offset, time, user } = publication;
    if (this.lines.has(offset)) return;
    const data = (typeof publication.data === "object" ? publication.data : undefined) as
      | { text?: unknown; name?: unknown; author?: unknown }
      | null
      | undefined;
    // Backends and other clients may send what is not of this page's shape: shown as it is.
    const text =
      typeof data?.text === "string"
        ? data.text
        : publication.binary
          ? `${publication.binary.length} bytes`
          : typeof publication.data === "string"
            ? publication.data
            : JSON.stringify(publication.data);
    const author = shown(data?.author, user ?? "backend");
    const line = this.line(author, shown(data?.name, user ?? "A backend"), text, time, offset);
    if (fresh) line.element.classList.add("fresh");
    // Where it belongs: nearly always at one of the two ends.
    let index = this.order.length;
    while (index > 0 && this.order[index - 1]! > offset) index--;
    const next = this.order[index];
    this.order.splice(index, 0, offset);
    this.lines.set(offset, line);
    const pending = this.pending.values().next().value?.element ?? null;
    this.list.insertBefore(line.element, next === undefined ? pending : this.lines.get(next)!.element);
    this.group(line.element);
    const after = line.element.nextElementSibling;
    if (after instanceof HTMLLIElement) this.group(after);
  }

  private remove(offset: number): void {
    this.order.shift();
    this.lines.get(offset)?.element.remove();
    this.lines.delete(offset);
    if (this.list.firstElementChild instanceof HTMLLIElement) this.group(this.list.firstElementChild);
  }

  private line(author: string, name: string, text: string, time: number, offset: number | undefined): Line {
    const element = make("li", "message");
    element.dataset.author = author;
    element.dataset.time = String(time);
    if (offset !== undefined) element.dataset.offset = String(offset);
    if (author === this.me.author) element.classList.add("mine");
    const head = make("div", "head");
    const clock = make("time", "", clockTime(time));
    clock.dateTime = new Date(time).toISOString();
    head.append(make("b", "", name), clock);
    const body = make("div", "body");
    body.append(head, make("div", "text", text));
    element.append(avatar(name, author), body);
    return { element, author, time };
  }

  /** A message right behind another of the same person shows no name. */
  private group(element: HTMLLIElement): void {
    const before = element.previousElementSibling as HTMLElement | null;
    const near = Number(element.dataset.time) - Number(before?.dataset.time ?? 0) < TOGETHER;
    const same = before?.dataset.author !== undefined && before.dataset.author === element.dataset.author;
    element.classList.toggle("follows", same && near);
  }
}

function clockTime(time: number): string {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(undefined, {
    hour: "2-digit",
    minute: "2-digit",
    ...(!today && { day: "numeric", month: "short" }),
  });
}
