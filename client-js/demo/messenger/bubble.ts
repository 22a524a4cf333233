import { avatar, button, icon, make } from "../dom.js";
import type { Fate } from "./receipts.js";
import { DELETED_TEXT, clock } from "./words.js";

/** One message, as it is shown. */
export interface Said {
  /** `undefined`: the server does not have it yet. */
  readonly offset: number | undefined;
  readonly messageId: string;
  readonly user: string | undefined;
  readonly text: string;
  readonly time: number;
  readonly replyTo: number | undefined;
  readonly deleted: boolean;
}

/** What a bubble can be asked for. */
export interface BubbleEvents {
  nameOf(user: string | undefined): string;
  reply(said: Said): void;
  delete(offset: number): void;
  /** What it answers, if that is at hand. */
  quoted(offset: number): Said | undefined;
  show(offset: number): void;
  mayDelete(said: Said): boolean;
}

/** The list's entry of one message. All words in it are text. */
export class Bubble {
  readonly element: HTMLLIElement;
  private readonly ticks = make("span", "ticks");

  constructor(
    readonly said: Said,
    readonly mine: boolean,
    private readonly events: BubbleEvents,
  ) {
    this.element = make("li", mine ? "bubble mine" : "bubble");
    if (said.offset !== undefined) this.element.dataset.offset = String(said.offset);
    if (said.deleted) this.element.classList.add("deleted");
    const name = events.nameOf(said.user);
    const who = make("b", "who", name);
    const words = make("div", "words");
    if (said.replyTo !== undefined && !said.deleted) words.append(this.quote(said.replyTo));
    words.append(make("span", "text", said.deleted ? DELETED_TEXT : said.text), this.meta());
    const line = make("div", "line");
    line.append(words);
    if (said.offset !== undefined && !said.deleted) line.append(this.tools(said.offset));
    const body = make("div", "body");
    body.append(who, line);
    const day = make("p", "day");
    const row = make("div", "bubble-row");
    row.append(avatar(name, said.user ?? ""), body);
    this.element.append(day, row);
    if (said.offset === undefined) this.fate("pending", "Waiting to be sent");
  }

  /** What became of it: pending, sent, received, read, failed. */
  fate(fate: Fate | "pending" | "failed", words: string): void {
    if (!this.mine || this.said.deleted || this.ticks.dataset.fate + (this.ticks.title || "") === fate + words) return;
    this.ticks.dataset.fate = fate;
    this.ticks.title = words;
    const face = fate === "read" ? "received" : fate === "pending" ? "clock" : fate;
    this.ticks.replaceChildren(icon(face), make("span", "hidden", words));
    this.element.classList.toggle("pending", fate === "pending");
    this.element.classList.toggle("failed", fate === "failed");
  }

  /** It did not arrive; `again` tries once more. */
  failed(why: string, again: () => void): void {
    this.fate("failed", "Not sent");
    const note = make("p", "status", `Not sent: ${why} `);
    note.append(
      button("link", "Try again", "Try again", () => {
        note.remove();
        this.fate("pending", "Waiting to be sent");
        again();
      }),
    );
    this.element.append(note);
  }

  /** What it answers may be at hand by now. */
  quoteAgain(): void {
    const { replyTo, deleted } = this.said;
    const quote = this.element.querySelector(".quote.unknown");
    if (quote && replyTo !== undefined && !deleted && this.events.quoted(replyTo)) quote.replaceWith(this.quote(replyTo));
  }

  private meta(): HTMLElement {
    const meta = make("span", "meta");
    const time = make("time", "", clock(this.said.time));
    time.dateTime = new Date(this.said.time).toISOString();
    meta.append(time);
    if (this.mine && !this.said.deleted) meta.append(this.ticks);
    return meta;
  }

  private quote(offset: number): HTMLElement {
    const quoted = this.events.quoted(offset);
    const who = quoted ? this.events.nameOf(quoted.user) : "An earlier message";
    const quote = make("button", quoted ? "quote" : "quote unknown");
    quote.type = "button";
    quote.addEventListener("click", () => this.events.show(offset));
    quote.append(make("span", "hidden", "Reply to "), make("b", "", who));
    if (quoted) quote.append(make("span", "words-of", quoted.deleted ? DELETED_TEXT : quoted.text));
    return quote;
  }

  private tools(offset: number): HTMLElement {
    const tools = make("div", "tools");
    tools.append(button("tool", "Reply", icon("reply"), () => this.events.reply(this.said)));
    if (this.events.mayDelete(this.said)) {
      tools.append(button("tool", "Delete", icon("delete"), () => this.events.delete(offset)));
    }
    return tools;
  }
}
