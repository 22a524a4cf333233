// The messenger, for who is signed in.

import type { FriendState, Platform } from "@xpush/client/platform";
import { byId, mount, reason } from "../dom.js";
import { toast } from "../toast.js";
import type { View } from "../view.js";
import { ChatList, titleOf } from "./chat-list.js";
import { Composer } from "./composer.js";
import { ContactList } from "./contact-list.js";
import { Contacts } from "./contacts.js";
import { Conversations, type Conversation } from "./conversations.js";
import type { Desk } from "./desk.js";
import { Details } from "./details.js";
import { face, groupFace, presenceText } from "./face.js";
import { NewGroup } from "./new-group.js";
import { Presences } from "./presences.js";
import { Profiles } from "./profiles.js";
import { Settings } from "./settings.js";
import { Status } from "./status.js";
import { Talk } from "./talk.js";
import { Writers } from "./writers.js";

/** What an inbox's word about a friend is to a person. */
const FRIEND_NEWS: { readonly [state in FriendState]?: string } = {
  incoming: "wants to be your friend",
  friends: "is your friend now",
};

export class MessengerView implements View {
  private readonly desk: Desk;
  private readonly chats: ChatList;
  private readonly people: ContactList;
  private readonly details: Details;
  private readonly status: Status;
  private readonly composer: Composer;
  private readonly writers: Writers;
  private readonly offs: (() => void)[] = [];
  private talk: Talk | undefined;
  /** Why one can't write in the open conversation. */
  private shut: string | undefined;
  private closed = false;

  constructor(platform: Platform) {
    mount("messenger-view");
    const me = platform.user ?? "";
    const desk = (this.desk = {
      me,
      platform,
      client: platform.client(),
      profiles: new Profiles(platform),
      presences: new Presences(platform),
      contacts: new Contacts(platform),
      conversations: new Conversations(platform, me),
    });
    this.status = new Status(desk.client);
    this.chats = new ChatList(desk);
    const message = (user: string): Promise<void> => this.message(user);
    this.people = new ContactList(desk, message);
    this.writers = new Writers((user) => desk.profiles.nameOf(user));
    this.composer = new Composer(
      (text, answered) => this.talk?.say(text, answered),
      () => this.talk?.typing(),
    );
    this.details = new Details(desk, () => void this.left(), message);
    new NewGroup(desk, (channel) => this.goTo(channel));
    new Settings(desk);
    byId("invitation-join").addEventListener("click", () => void this.answer(true));
    byId("invitation-decline").addEventListener("click", () => void this.answer(false));
    this.listen();
    void desk.conversations.load();
    void desk.contacts.load();
  }

  route(path: string): void {
    const chat = path.startsWith("chat/") ? path.slice("chat/".length) : undefined;
    const contacts = path === "contacts";
    byId("messenger").dataset.pane = chat === undefined ? "list" : "talk";
    if (chat === undefined) {
      byId("contacts-pane").hidden = !contacts;
      byId("chats-pane").hidden = contacts;
      for (const [id, current] of [
        ["tab-chats", !contacts],
        ["tab-contacts", contacts],
      ] as const) {
        if (current) byId(id).setAttribute("aria-current", "page");
        else byId(id).removeAttribute("aria-current");
      }
    }
    this.chats.current = chat;
    this.chats.draw();
    this.people.draw();
    this.show(chat);
  }

  close(): void {
    this.closed = true;
    this.talk?.close();
    for (const off of this.offs) off();
    this.status.stop();
    this.desk.presences.stop();
    this.desk.conversations.stop();
    this.desk.platform.inbox.close();
  }

  private listen(): void {
    const { platform, conversations, contacts, presences, profiles, client } = this.desk;
    const { inbox } = platform;
    const reload = (): void => void conversations.load();
    this.offs.push(
      inbox.on("message", (message) => conversations.told(message)),
      inbox.on("mention", (message) => conversations.told(message)),
      inbox.on("read", ({ channel, offset }) => conversations.wasRead(channel, offset)),
      inbox.on("invite", reload),
      inbox.on("role", reload),
      inbox.on("kick", (event) => this.thrownOut(event.channel)),
      inbox.on("ban", (event) => this.thrownOut(event.channel)),
      inbox.on("friend", ({ user, state }) => {
        const news = FRIEND_NEWS[state];
        if (news) void profiles.name(user).then((name) => this.closed || toast(`${name} ${news}`));
        void contacts.load();
        void presences.ask(user);
      }),
      inbox.on("gap", () => {
        reload();
        void contacts.load();
      }),
      conversations.on("change", () => this.changed()),
      contacts.on("change", () => this.header()),
      presences.on("change", () => this.header()),
      profiles.on("change", () => this.header()),
    );
    let before = client.state;
    this.offs.push(
      client.on("state", (state) => {
        // The inbox brings what was missed; the lists that could not be read come anew.
        if (state === "connected" && before === "disconnected") {
          if (conversations.problem) reload();
          if (contacts.problem) void contacts.load();
        }
        before = state;
      }),
    );
    inbox.subscribe().catch((error: unknown) => this.closed || toast(`News can't come in just now: ${reason(error)}`));
  }

  /** The direct conversation with somebody. */
  private async message(user: string): Promise<void> {
    const { channel } = await this.desk.platform.channels.direct(user);
    await this.goTo(channel);
  }

  private async goTo(channel: string): Promise<void> {
    await this.desk.conversations.load();
    location.hash = `chat/${encodeURIComponent(channel)}`;
  }

  private async left(): Promise<void> {
    location.hash = "";
    await this.desk.conversations.load();
  }

  private thrownOut(channel: string): void {
    const one = this.desk.conversations.get(channel);
    if (one) toast(`You are no longer in ${titleOf(this.desk, one)}`);
    if (this.talk?.conversation.channel === channel) location.hash = "";
    void this.desk.conversations.load();
  }

  /** The list changed: the open conversation may have just come, or its title be another. */
  private changed(): void {
    const { current } = this.chats;
    if (current !== undefined && !this.talk) this.show(current);
    this.header();
  }

  private show(channel: string | undefined): void {
    const one = channel === undefined ? undefined : this.desk.conversations.get(channel);
    const same = one !== undefined && this.talk?.conversation.channel === one.channel;
    if (!same) {
      this.talk?.close();
      this.talk = undefined;
    }
    byId("conversation").hidden = one === undefined;
    byId("conversation").dataset.kind = one?.kind ?? "";
    byId("nothing").hidden = one !== undefined;
    if (!one) {
      if (channel !== undefined && this.desk.conversations.loaded) location.hash = "";
      return this.details.open(undefined);
    }
    const invited = one.state === "invited";
    byId("invitation").hidden = !invited;
    this.composer.hide(invited);
    this.header();
    if (same) return;
    if (invited) return this.invited(one);
    this.shut = undefined;
    this.composer.open(one.channel, `Message ${titleOf(this.desk, one)}`);
    this.talk = new Talk(this.desk, one, this.writers, {
      reply: (answered) => this.composer.answer(answered),
      membersChanged: () => this.header(),
      shut: (why) => this.composer.enable((this.shut = why)),
    });
    this.header();
    this.details.open(this.talk);
    // Who goes by keyboard or ear is told where they are; a touch keeps its place.
    if (!byId("conversation").contains(document.activeElement)) byId("talk-title").focus({ preventScroll: true });
  }

  private invited(one: Conversation): void {
    byId("bubbles").replaceChildren();
    byId("talk-state").textContent = "Join to read what was said.";
    byId("invitation-text").textContent = `You are invited to ${titleOf(this.desk, one)}.`;
    this.details.open(undefined);
  }

  private async answer(join: boolean): Promise<void> {
    const channel = this.chats.current;
    if (channel === undefined) return;
    try {
      if (join) await this.desk.platform.channels.join(channel);
      else await this.desk.platform.channels.leave(channel);
      await this.desk.conversations.load();
      if (join) this.show(channel);
      else location.hash = "";
    } catch (error) {
      toast(reason(error));
    }
  }

  private header(): void {
    const one = this.chats.current === undefined ? undefined : this.desk.conversations.get(this.chats.current);
    if (!one) return;
    const title = titleOf(this.desk, one);
    byId("talk-title").textContent = title;
    byId("talk-face").replaceChildren(one.user !== undefined ? face(this.desk, one.user) : groupFace(title, one.channel));
    byId("talk-status").textContent = one.user !== undefined ? presenceText(this.desk, one.user) : this.who();
    byId("open-details").hidden = this.talk === undefined;
    if (one.user !== undefined) {
      this.desk.presences.watch("talk", [one.user]);
      const blocked = this.desk.contacts.stateOf(one.user) === "blocked";
      this.composer.enable(blocked ? `You blocked ${title}.` : this.shut);
    }
    this.details.draw();
  }

  private who(): string {
    const names = (this.talk?.members ?? []).filter(({ state }) => state === "active").map(({ user }) => (user === this.desk.me ? "you" : this.desk.profiles.nameOf(user)));
    return names.length > 5 ? `${names.length} members` : names.join(", ");
  }
}
