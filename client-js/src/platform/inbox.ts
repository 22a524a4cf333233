import { Emitter, type Channel, type Client, type Publication } from "../index.js";
import type { InboxCursor, InboxEvents } from "./types.js";

const EVENTS: readonly (keyof InboxEvents)[] = ["message", "mention", "invite", "kick", "ban", "role", "friend", "read"];

/** What happens to a user in channels that this device has not opened, by name. */
export class Inbox extends Emitter<InboxEvents> {
  private open: { readonly channel: Channel; readonly offs: (() => void)[] } | undefined;

  constructor(
    private readonly client: () => Client,
    private readonly user: () => string,
  ) {
    super();
  }

  /** Listens from now on, or from where another life of the application stopped. */
  async subscribe(cursor?: InboxCursor): Promise<void> {
    this.close();
    const channel = this.client().channel(inboxOf(this.user()));
    const offs = [
      channel.on("publication", (publication) => this.take(publication)),
      channel.on("gap", () => this.emit("gap", undefined)),
    ];
    this.open = { channel, offs };
    await channel.subscribe(cursor && { cursor });
  }

  /** Where to go on another time. */
  get cursor(): InboxCursor | undefined {
    return this.open?.channel.cursor;
  }

  close(): void {
    const open = this.open;
    this.open = undefined;
    for (const off of open?.offs ?? []) off();
    void open?.channel.unsubscribe().catch(() => {});
  }

  private take({ event, data }: Publication): void {
    const name = EVENTS.find((name) => name === event);
    // One of a newer server is not for us.
    if (name && typeof data === "object" && data !== null) this.emit(name, data as InboxEvents[typeof name]);
  }
}

/** The channel of a user's inbox. An id that no channel can have in its name stands there in base64url. */
export function inboxOf(user: string): string {
  if (/^[A-Za-z0-9._-][A-Za-z0-9._~-]*$/.test(user)) return `inbox:${user}`;
  const bytes = new TextEncoder().encode(user);
  const base64 = btoa(String.fromCharCode(...bytes));
  return `inbox:~${base64.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}`;
}
