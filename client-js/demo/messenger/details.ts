import type { ChannelMember } from "@xpush/client/platform";
import { byId, button, icon, make, reason } from "../dom.js";
import { toast } from "../toast.js";
import { titleOf } from "./chat-list.js";
import type { Desk } from "./desk.js";
import { confirmed } from "./dialogs.js";
import { face, groupFace, presenceText } from "./face.js";
import type { Talk } from "./talk.js";

/** About the open conversation: who is in it, and what one may do there. */
export class Details {
  private readonly panel = byId("details");
  private readonly opener = byId("open-details");
  private talk: Talk | undefined;

  constructor(
    private readonly desk: Desk,
    /** The conversation is over for us. */
    private readonly left: () => void,
    private readonly message: (user: string) => Promise<void>,
  ) {
    this.opener.addEventListener("click", () => this.toggle(this.panel.hidden === true));
    this.panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.toggle(false);
    });
  }

  open(talk: Talk | undefined): void {
    if (talk?.conversation.channel !== this.talk?.conversation.channel) this.toggle(false);
    this.talk = talk;
    this.draw();
  }

  /** Not under the fingers of somebody who writes, unless something was done there. */
  draw(done = false): void {
    if (!this.talk || this.panel.hidden) return;
    const active = document.activeElement as HTMLElement | null;
    if (!done && active && this.panel.contains(active) && active.matches("input, select")) return;
    const focused = active?.dataset.key;
    const { conversation } = this.talk;
    const head = make("header", "details-head");
    const title = titleOf(this.desk, conversation);
    const close = button("icon", "Close", icon("close"), () => this.toggle(false));
    close.dataset.key = "close";
    head.append(
      close,
      conversation.user !== undefined ? face(this.desk, conversation.user) : groupFace(title, conversation.channel),
      make("h2", "", title),
      make("p", "soft", conversation.user !== undefined ? this.aboutUser(conversation.user) : this.aboutGroup()),
    );
    this.panel.replaceChildren(head, ...(conversation.kind === "direct" ? this.direct(conversation.user) : this.group(this.talk)));
    if (focused !== undefined) this.panel.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  private toggle(open: boolean): void {
    const had = this.panel.contains(document.activeElement);
    this.panel.hidden = !open;
    byId("messenger").classList.toggle("with-details", open);
    this.opener.setAttribute("aria-expanded", String(open));
    this.draw();
    // Nobody is told of each who joins or leaves.
    if (open) void this.talk?.loadMembers();
    if (open) this.panel.querySelector<HTMLElement>("button")?.focus();
    else if (had) this.opener.focus();
  }

  private aboutUser(user: string): string {
    const words = [`@${user}`, presenceText(this.desk, user), this.desk.profiles.statusOf(user)];
    return words.filter(Boolean).join(" · ");
  }

  private aboutGroup(): string {
    const active = this.talk!.members.filter(({ state }) => state === "active").length;
    return `${active} ${active === 1 ? "member" : "members"}`;
  }

  private direct(user: string | undefined): HTMLElement[] {
    if (user === undefined) return [];
    const { contacts, profiles } = this.desk;
    const name = profiles.nameOf(user);
    const stack = make("div", "stack");
    const state = contacts.stateOf(user);
    if (state === undefined) stack.append(this.action("Add to friends", () => contacts.request(user)));
    if (state === "incoming") stack.append(this.action("Accept the request", () => contacts.request(user)));
    if (state === "friends") {
      stack.append(this.action("Remove from friends", async () => {
        if (await confirmed(`Remove ${name} from your friends?`, "Remove")) await contacts.remove(user);
      }));
    }
    if (state === "blocked") stack.append(this.action("Unblock", () => contacts.unblock(user)));
    else {
      stack.append(this.action(`Block ${name}`, async () => {
        const question = `Block ${name}? They can't write to you any more, nor see whether you are here.`;
        if (await confirmed(question, "Block")) await contacts.block(user);
      }, "danger"));
    }
    return [stack];
  }

  private group(talk: Talk): HTMLElement[] {
    const { conversation, members, mayManage } = talk;
    const { channels } = this.desk.platform;
    const { channel } = conversation;
    const parts: HTMLElement[] = [];
    if (mayManage) parts.push(this.rename(talk), this.invite(talk));
    const list = make("ul", "rows");
    list.setAttribute("aria-label", "Members");
    list.append(...members.map((member) => this.member(talk, member)));
    const section = make("section");
    section.append(make("h3", "", "Members"), list);
    const stack = make("div", "stack");
    stack.append(this.action("Leave the group", async () => {
      if (!(await confirmed("Leave this group? Somebody has to invite you to come back.", "Leave"))) return;
      await channels.leave(channel);
      this.left();
    }, "danger"));
    if (conversation.role === "owner") {
      stack.append(this.action("Delete the group", async () => {
        if (!(await confirmed("Delete this group for all of its members?", "Delete"))) return;
        await channels.delete(channel);
        this.left();
      }, "danger"));
    }
    return [...parts, section, stack];
  }

  private rename(talk: Talk): HTMLElement {
    const { conversation } = talk;
    const form = make("form", "inline-form");
    const label = make("label", "", "Name");
    const input = make("input");
    input.value = conversation.title ?? "";
    input.maxLength = 80;
    input.dataset.key = "rename";
    label.append(input);
    const save = make("button", "small", "Save");
    form.append(label, save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.act(async () => {
        await this.desk.platform.channels.update(conversation.channel, { title: input.value.trim() });
        await this.desk.conversations.load();
        toast("Renamed");
      });
    });
    return form;
  }

  private invite(talk: Talk): HTMLElement {
    const there = new Set(talk.members.filter(({ state }) => state !== "banned").map(({ user }) => user));
    const friends = this.desk.contacts.in("friends").filter(({ user }) => !there.has(user));
    const form = make("form", "inline-form");
    const label = make("label", "", "Invite a friend");
    const select = make("select");
    select.dataset.key = "invite";
    for (const { user } of friends) {
      const option = make("option", "", this.desk.profiles.nameOf(user));
      option.value = user;
      select.append(option);
    }
    label.append(select);
    const send = make("button", "small", "Invite");
    form.append(label, send);
    form.hidden = friends.length === 0;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.act(async () => {
        await this.desk.platform.channels.invite(talk.conversation.channel, select.value);
        await talk.loadMembers();
        toast(`${this.desk.profiles.nameOf(select.value)} is invited`);
      });
    });
    return form;
  }

  private member(talk: Talk, { user, role, state }: ChannelMember): HTMLLIElement {
    const { me, profiles, platform } = this.desk;
    const name = profiles.nameOf(user);
    const item = make("li", "row person");
    item.dataset.user = user;
    const text = make("span", "grow");
    const second = state === "invited" ? "invited" : state === "banned" ? "banned" : role === "member" ? presenceText(this.desk, user) : role;
    text.append(make("b", "", user === me ? `${name} (you)` : name), make("span", "snippet", second));
    item.append(face(this.desk, user), text);
    if (user !== me) {
      const chat = button("icon", `Message ${name}`, icon("chat"), () => void this.act(() => this.message(user)));
      chat.dataset.key = `message:${user}`;
      item.append(chat);
    }
    if (talk.mayManage && user !== me && role !== "owner") {
      const kick = button("icon", `Remove ${name}`, icon("close"), () =>
        void this.act(async () => {
          if (!(await confirmed(`Remove ${name} from this group?`, "Remove"))) return;
          await platform.channels.kick(talk.conversation.channel, user);
          await talk.loadMembers();
        }),
      );
      kick.dataset.key = `kick:${user}`;
      item.append(kick);
    }
    return item;
  }

  private action(label: string, done: () => Promise<void>, className = ""): HTMLElement {
    const element = button(`secondary ${className}`.trim(), label, label, () => void this.act(done));
    element.dataset.key = label;
    return element;
  }

  private async act(done: () => Promise<void>): Promise<void> {
    try {
      await done();
      this.draw(true);
    } catch (error) {
      toast(reason(error));
    }
  }
}
