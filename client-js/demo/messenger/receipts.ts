import type { Receipt } from "@xpush/client";

/** What became of a message of one's own. */
export type Fate = "sent" | "received" | "read";

/** How far the other members of a channel have come. */
export class Receipts {
  private readonly others = new Map<string, { read: number; received: number }>();

  constructor(private readonly me: string) {}

  /** Who is in, whether anything is known of them or not. */
  members(users: readonly string[]): void {
    for (const user of this.others.keys()) if (!users.includes(user)) this.others.delete(user);
    for (const user of users) if (user !== this.me && !this.others.has(user)) this.others.set(user, { read: 0, received: 0 });
  }

  take({ user, read = 0, received = 0 }: Pick<Receipt, "user" | "read" | "received">): void {
    if (user === this.me) return;
    const before = this.others.get(user) ?? { read: 0, received: 0 };
    // They come over several ways; the furthest counts.
    this.others.set(user, { read: Math.max(before.read, read), received: Math.max(before.received, received, read) });
  }

  fate(offset: number): Fate {
    const all = [...this.others.values()];
    if (all.length === 0) return "sent";
    if (all.every(({ read }) => read >= offset)) return "read";
    return all.every(({ received }) => received >= offset) ? "received" : "sent";
  }

  /** In words, for a person who rests on the ticks or hears the page. */
  words(offset: number): string {
    const all = [...this.others.values()];
    const count = (kind: "read" | "received"): number => all.filter((one) => one[kind] >= offset).length;
    const [read, received] = [count("read"), count("received")];
    if (all.length <= 1) return read > 0 ? "Read" : received > 0 ? "Received" : "Sent";
    if (read > 0) return `Read by ${read} of ${all.length}`;
    return received > 0 ? `Received by ${received} of ${all.length}` : "Sent";
  }
}
