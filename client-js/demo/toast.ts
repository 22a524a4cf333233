import { byId, make } from "./dom.js";

/** Milliseconds that a word stays. */
const STAYS = 4_000;

/** Says something in passing. */
export function toast(text: string): void {
  const element = make("p", "toast", text);
  byId("toasts").append(element);
  setTimeout(() => element.remove(), STAYS);
}
