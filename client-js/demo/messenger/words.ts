// What messages, places and times are in words.

import type { Publication } from "@xpush/client";

/** The server's word that a message was deleted: at its own place without data, and once more to those who have it. */
export const DELETED = "xpush.deleted";

export const DELETED_TEXT = "This message was deleted";

/** A message's text, whatever another client made of it. */
export function textOf({ event, data, binary }: Publication): string {
  if (event === DELETED) return DELETED_TEXT;
  if (binary) return `${binary.length} bytes`;
  if (typeof data === "string") return data;
  const text = (data as { text?: unknown } | null | undefined)?.text;
  return typeof text === "string" ? text : data === undefined ? "" : JSON.stringify(data);
}

export function clock(time: number): string {
  return new Date(time).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** A day, as one speaks of it. */
export function day(time: number, now = Date.now()): string {
  const date = new Date(time);
  const days = Math.round((midnight(now) - midnight(time)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days > 1 && days < 7) return date.toLocaleDateString(undefined, { weekday: "long" });
  const thisYear = date.getFullYear() === new Date(now).getFullYear();
  return date.toLocaleDateString(undefined, { day: "numeric", month: "long", ...(!thisYear && { year: "numeric" }) });
}

/** When a list's entry was: the hour if it was today, else the day. */
export function when(time: number): string {
  const text = day(time);
  return text === "Today" ? clock(time) : text;
}

export function lastSeen(time: number | undefined, now = Date.now()): string {
  if (time === undefined) return "offline";
  const minutes = Math.floor((now - time) / 60_000);
  if (minutes < 1) return "last seen just now";
  if (minutes < 60) return `last seen ${minutes} min ago`;
  const text = day(time, now);
  return text === "Today" ? `last seen at ${clock(time)}` : `last seen ${text.toLowerCase()}, ${clock(time)}`;
}

function midnight(time: number): number {
  return new Date(time).setHours(0, 0, 0, 0);
}
