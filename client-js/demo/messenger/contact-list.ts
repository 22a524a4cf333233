import { ApiError, type Profile } from "@xpush/client/platform";
import { byId, button, icon, make, reason } from "../dom.js";
import { toast } from "../toast.js";
import type { Desk } from "./desk.js";
import { confirmed } from "./dialogs.js";
import { face, presenceText } from "./face.js";

/** Milliseconds after the last key before the server is asked. */
const PAUSE = 200;

/** People that a search shows. */
const FOUND = 20;

/** Friends, requests and blocked people; and everybody else, by search. */
export class ContactList {
  private readonly place = byId("contacts");
  private readonly state = byId("contacts-state");
  private found: readonly Profile[] | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private asked = 0;
  private drawing = false;

  /** `open`: a conversation with somebody. */
  constructor(
    private readonly desk: Desk,
    private readonly open: (user: string) => Promise<void>,
  ) {
    const input = byId<HTMLInputElement>("search-text");
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.search(input.value);
    });
    input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => void this.search(input.value), PAUSE);
    });
    desk.contacts.on("change", () => this.draw());
    desk.profiles.on("change", () => this.draw());
    desk.presences.on("change", () => this.draw());
  }

  draw(): void {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (this.place.isConnected) this.render();
    });
  }

  private async search(text: string): Promise<void> {
    const asked = ++this.asked;
    const words = text.trim();
    if (!words) {
      this.found = undefined;
      return this.draw();
    }
    try {
      const { items } = await this.desk.platform.users.search(words, { limit: FOUND });
      // Ids are short and known by heart: who types one finds its user.
      const exact = items.some(({ user }) => user === words) ? undefined : await this.byId(words);
      if (asked !== this.asked) return;
      this.found = [...(exact ? [exact] : []), ...items].filter(({ user }) => user !== this.desk.me);
      for (const profile of this.found) this.desk.profiles.learn(profile);
    } catch (error) {
      if (asked !== this.asked) return;
      this.found = [];
      toast(`The search failed: ${reason(error)}`);
    }
    this.draw();
  }

  private async byId(user: string): Promise<Profile | undefined> {
    try {
      return await this.desk.platform.users.get(user);
    } catch (error) {
      if (error instanceof ApiError) return undefined;
      throw error;
    }
  }

  private render(): void {
    const { contacts } = this.desk;
    const requests = contacts.in("incoming");
    this.desk.presences.watch("contacts", contacts.in("friends").map(({ user }) => user));
    const badge = byId("requests-total");
    badge.hidden = requests.length === 0;
    badge.textContent = String(requests.length);
    const focused = (document.activeElement as HTMLElement | null)?.dataset.key;
    if (this.found) {
      this.place.replaceChildren(this.section("Found", this.found.map(({ user }) => this.person(user))));
      this.state.textContent = this.found.length === 0 ? "Nobody of that name." : "";
    } else {
      const sections: [string, readonly { user: string }[]][] = [
        ["Requests", requests],
        ["Friends", contacts.in("friends")],
        ["Asked", contacts.in("requested")],
        ["Blocked", contacts.in("blocked")],
      ];
      const filled = sections.filter(([, people]) => people.length > 0);
      this.place.replaceChildren(...filled.map(([title, people]) => this.section(title, people.map(({ user }) => this.person(user)))));
      this.state.textContent = contacts.problem
        ? `Your contacts can't be read just now: ${reason(contacts.problem)}`
        : !contacts.loaded
          ? "Loading…"
          : filled.length === 0
            ? "Nobody here yet. Find people by their name."
            : "";
    }
    if (focused !== undefined) this.place.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  private section(title: string, rows: readonly HTMLElement[]): HTMLElement {
    const section = make("section");
    const heading = make("h2", "", title);
    const list = make("ul", "rows");
    list.setAttribute("aria-label", title);
    list.append(...rows);
    section.append(heading, list);
    section.hidden = rows.length === 0;
    return section;
  }

  private person(user: string): HTMLLIElement {
    const { profiles, contacts } = this.desk;
    const name = profiles.nameOf(user);
    const text = make("span", "grow");
    const second = presenceText(this.desk, user) || (name === user ? profiles.statusOf(user) : `@${user}`);
    text.append(make("b", "", name), make("span", "snippet", second));
    const item = make("li", "row person");
    item.dataset.user = user;
    item.append(face(this.desk, user), text);
    const act = (symbol: string, label: string, done: () => Promise<unknown>): HTMLButtonElement => {
      const face = symbol ? icon(symbol) : label;
      const element = button(symbol ? "icon" : "small", `${label} ${name}`, face, () => void this.act(done));
      element.dataset.key = `${label}:${user}`;
      return element;
    };
    switch (contacts.stateOf(user)) {
      case "friends":
        item.append(act("chat", "Message", () => this.open(user)), act("block", "Block", () => this.block(user, name)));
        break;
      case "incoming":
        item.append(act("", "Accept", () => contacts.request(user)), act("close", "Decline", () => contacts.remove(user)));
        break;
      case "requested":
        item.append(act("close", "Take back the request to", () => contacts.remove(user)));
        break;
      case "blocked":
        item.append(act("", "Unblock", () => contacts.unblock(user)));
        break;
      case undefined:
        item.append(act("", "Add", () => contacts.request(user)), act("chat", "Message", () => this.open(user)));
    }
    return item;
  }

  private async block(user: string, name: string): Promise<void> {
    if (await confirmed(`Block ${name}? They can't write to you any more, nor see whether you are here.`, "Block")) {
      await this.desk.contacts.block(user);
    }
  }

  private async act(done: () => Promise<unknown>): Promise<void> {
    try {
      await done();
      this.draw();
    } catch (error) {
      toast(reason(error));
    }
  }
}
