import { byId } from "../dom.js";

/** Milliseconds after which somebody who gave no more sign has stopped. */
const FADES = 4_000;

/** Who is writing just now. Signals may get lost: they fade by themselves. */
export class Writers {
  private readonly line = byId("talk-typing");
  private readonly timers = new Map<string, ReturnType<typeof setTimeout>>();

  constructor(private readonly nameOf: (user: string) => string) {}

  seen(user: string): void {
    clearTimeout(this.timers.get(user));
    this.timers.set(
      user,
      setTimeout(() => this.stopped(user), FADES),
    );
    this.render();
  }

  stopped(user: string): void {
    clearTimeout(this.timers.get(user));
    if (this.timers.delete(user)) this.render();
  }

  clear(): void {
    for (const timer of this.timers.values()) clearTimeout(timer);
    this.timers.clear();
    this.render();
  }

  private render(): void {
    const names = [...this.timers.keys()].map(this.nameOf);
    this.line.textContent =
      names.length === 0
        ? ""
        : names.length > 3
          ? "Several people are writing…"
          : `${names.join(", ")} ${names.length === 1 ? "is" : "are"} writing…`;
  }
}
