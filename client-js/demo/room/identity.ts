import { randomText, read, write } from "../storage.js";

const ADJECTIVES = ["Quiet", "Bright", "Swift", "Gentle", "Bold", "Merry", "Clever", "Sunny", "Brave", "Calm"];
const ANIMALS = ["Otter", "Heron", "Fox", "Lynx", "Wren", "Hare", "Owl", "Seal", "Finch", "Badger"];

/** The longest name that is shown. */
const NAME_LENGTH = 40;

/** Who the person at this page is: a name of their choice, and an id that stays when it changes. */
export class Identity {
  /** Random; tells one's own messages after a reload. */
  readonly author: string;
  private chosen: string;

  constructor() {
    this.author = read("xpush-demo-author") ?? write("xpush-demo-author", randomText());
    this.chosen = read("xpush-demo-name") ?? write("xpush-demo-name", `${pick(ADJECTIVES)} ${pick(ANIMALS)}`);
  }

  get name(): string {
    return this.chosen;
  }

  set name(name: string) {
    const trimmed = name.trim().slice(0, NAME_LENGTH);
    if (trimmed) this.chosen = write("xpush-demo-name", trimmed);
  }
}

/** Text from somebody else's message, whatever they sent. */
export function shown(value: unknown, otherwise: string): string {
  return typeof value === "string" && value.trim() ? value.trim().slice(0, NAME_LENGTH) : otherwise;
}

function pick(list: readonly string[]): string {
  return list[Math.floor(Math.random() * list.length)]!;
}
