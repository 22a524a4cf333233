import { byId } from "../dom.js";

/** Milliseconds between two signs of one's own typing. */
const EVERY = 2_000;

/** Milliseconds after which somebody who gave no more sign has stopped. */
const FADES = 4_000;

/** Who is writing just now. Signs may get lost on their way: they fade by themselves. */
export class Typing {
  private readonly line = byId("typing");
  private readonly writers = new Map<string, { name: string; timer: ReturnType<typeof setTimeout> }>();
  private last = 0;

  /** `cast`: tells the others. */
  constructor(private readonly cast: () => void) {}

  /** A key was pressed here. */
  pressed(): void {
    const now = Date.now();
    if (now - this.last < EVERY) return;
    this.last = now;
    this.cast();
  }

  /** What was written is sent: the next key counts again. */
  sent(): void {
    this.last = 0;
  }

  /** Somebody else gave a sign. */
  seen(author: string, name: string): void {
    clearTimeout(this.writers.get(author)?.timer);
    this.writers.set(author, { name, timer: setTimeout(() => this.stopped(author), FADES) });
    this.render();
  }

  stopped(author: string): void {
    clearTimeout(this.writers.get(author)?.timer);
    if (this.writers.delete(author)) this.render();
  }

  clear(): void {
    for (const author of [...this.writers.keys()]) this.stopped(author);
  }

  private render(): void {
    const names = [...this.writers.values()].map(({ name }) => name);
    this.line.textContent =
      names.length === 0
        ? ""
        : names.length > 3
          ? "Several people are writing…"
          : `${names.join(", ")} ${names.length === 1 ? "is" : "are"} writing…`;
  }
}
