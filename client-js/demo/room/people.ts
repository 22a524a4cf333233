import type { Member } from "@xpush/client";
import { avatar, byId, make } from "../dom.js";

/** People that are listed by name; more are a number. */
const LISTED = 100;

/** Who is in the room. Sessions come from the server, their names from themselves. */
export class People {
  private readonly list = byId<HTMLUListElement>("people");
  private readonly members = new Map<string, Member>();
  private readonly names = new Map<string, { name: string; author: string }>();
  private count = 0;

  /** `self`: this page's session. `wave`: somebody was greeted. */
  constructor(
    private readonly self: () => string | undefined,
    private readonly wave: (session: string, name: string) => void,
  ) {}

  clear(): void {
    this.members.clear();
    this.counted(0);
  }

  all(members: readonly Member[], sessions: number): void {
    this.members.clear();
    for (const member of members) this.members.set(member.session, member);
    this.counted(sessions);
  }

  joined(member: Member, count: number): void {
    this.members.set(member.session, member);
    this.counted(count);
  }

  left(member: Member, count: number): void {
    this.members.delete(member.session);
    this.counted(count);
  }

  counted(count: number): void {
    this.count = count;
    this.render();
  }

  /** A session says what it is called. */
  named(session: string, name: string, author: string): void {
    const known = this.names.get(session);
    if (known?.name === name && known.author === author) return;
    // Sessions come and go; a page that stays open for weeks need not know them all.
    if (this.names.size > 2000) this.names.clear();
    this.names.set(session, { name, author });
    this.render();
  }

  nameOf(member: Member): string {
    return this.names.get(member.session)?.name ?? member.user ?? `Guest ${member.session.slice(0, 4)}`;
  }

  private render(): void {
    byId("people-count").textContent = this.count > 0 ? String(this.count) : "";
    byId("count").textContent = this.count === 0 ? "" : this.count === 1 ? "Only you are here" : `${this.count} here now`;
    const self = this.self();
    const members = [...this.members.values()].sort(
      (a, b) => Number(b.session === self) - Number(a.session === self) || this.nameOf(a).localeCompare(this.nameOf(b)),
    );
    const items = members.slice(0, LISTED).map((member) => this.item(member, member.session === self));
    if (this.count > items.length && items.length > 0) items.push(make("li", "", `and ${this.count - items.length} more`));
    this.list.replaceChildren(...items);
  }

  private item(member: Member, self: boolean): HTMLLIElement {
    const name = this.nameOf(member);
    const item = make("li");
    item.append(avatar(name, this.names.get(member.session)?.author ?? member.session), make("span", "who", name));
    if (self) item.append(make("small", "", "you"));
    else {
      const button = make("button", "wave", "Wave");
      button.type = "button";
      button.setAttribute("aria-label", `Wave at ${name}`);
      button.addEventListener("click", () => this.wave(member.session, name));
      item.append(button);
    }
    return item;
  }
}
