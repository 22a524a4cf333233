import { byId, make, reason } from "../dom.js";
import type { Conversation } from "./conversations.js";
import type { Desk } from "./desk.js";
import { face, groupFace } from "./face.js";
import { when } from "./words.js";

/** Entries at first, and with each "More". */
const SHOWN = 50;

/** The conversations, newest first. */
export class ChatList {
  private readonly list = byId<HTMLUListElement>("chats");
  private readonly state = byId("chats-state");
  private shown = SHOWN;
  private drawing = false;
  /** The open one. */
  current: string | undefined;

  constructor(private readonly desk: Desk) {
    byId("chats-more").addEventListener("click", () => {
      this.shown += SHOWN;
      this.draw();
    });
    desk.conversations.on("change", () => this.draw());
    desk.profiles.on("change", () => this.draw());
    desk.presences.on("change", () => this.draw());
  }

  /** Many changes make one picture. */
  draw(): void {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.list.isConnected) this.render();
    });
  }

  private render(): void {
    const { conversations, presences } = this.desk;
    const all = conversations.all;
    const rows = all.slice(0, this.shown);
    presences.watch("chats", rows.flatMap(({ user }) => (user === undefined ? [] : [user])));
    const focused = (document.activeElement as HTMLElement | null)?.dataset.channel;
    this.list.replaceChildren(...rows.map((one) => this.row(one)));
    if (focused !== undefined) this.list.querySelector<HTMLElement>(`[data-channel="${CSS.escape(focused)}"]`)?.focus();
    byId("chats-more").hidden = all.length <= rows.length;
    this.state.textContent = conversations.problem
      ? `Your chats can't be read just now: ${reason(conversations.problem)}`
      : !conversations.loaded
        ? "Loading…"
        : all.length === 0
          ? "No chats yet. Find somebody under Contacts, and say hello."
          : "";
    const total = conversations.unreadTotal;
    const badge = byId("unread-total");
    badge.hidden = total === 0;
    badge.textContent = total > 99 ? "99+" : String(total);
    document.title = total > 0 ? `(${total}) XPUSH Messenger` : "XPUSH Messenger";
  }

  private row(one: Conversation): HTMLLIElement {
    const title = titleOf(this.desk, one);
    const link = make("a", "row");
    link.href = `#chat/${encodeURIComponent(one.channel)}`;
    link.dataset.channel = one.channel;
    if (one.channel === this.current) link.setAttribute("aria-current", "page");
    const top = make("span", "row-top");
    top.append(make("b", "", title));
    if (one.last) {
      const time = make("time", "", when(one.last.time));
      time.dateTime = new Date(one.last.time).toISOString();
      top.append(time);
    }
    const bottom = make("span", "row-bottom");
    bottom.append(make("span", "snippet", this.snippet(one)));
    const unread = this.desk.conversations.unread(one);
    if (unread > 0) {
      link.classList.add("unread");
      const badge = make("span", one.notify === "none" ? "badge silent" : "badge", one.state === "invited" ? "new" : unread > 99 ? "99+" : String(unread));
      if (one.state !== "invited") badge.append(make("span", "hidden", " unread"));
      bottom.append(badge);
    }
    const text = make("span", "grow");
    text.append(top, bottom);
    link.append(one.user !== undefined ? face(this.desk, one.user) : groupFace(title, one.channel), text);
    const item = make("li");
    item.append(link);
    return item;
  }

  private snippet(one: Conversation): string {
    if (one.state === "invited") return "You are invited";
    if (!one.last) return one.kind === "direct" ? "Say hello" : `${one.members} members`;
    const { user, text } = one.last;
    const who = user === this.desk.me ? "You: " : one.kind === "group" && user !== undefined ? `${this.desk.profiles.nameOf(user)}: ` : "";
    return who + text;
  }
}

export function titleOf(desk: Desk, one: Conversation): string {
  return one.user !== undefined ? desk.profiles.nameOf(one.user) : one.title || "Group";
}

