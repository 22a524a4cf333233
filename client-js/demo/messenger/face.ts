import { avatar, make } from "../dom.js";
import type { Desk } from "./desk.js";
import { lastSeen } from "./words.js";

const STATES = { online: "online", away: "away", offline: "offline" } as const;

/** Somebody's picture, with the dot that says whether they are there. */
export function face(desk: Desk, user: string): HTMLElement {
  const element = avatar(desk.profiles.nameOf(user), user);
  element.classList.add("round-avatar");
  const state = desk.presences.of(user)?.state;
  if (state) {
    const dot = make("span", "presence");
    dot.dataset.state = state;
    element.append(dot);
  }
  return element;
}

/** A group's. */
export function groupFace(title: string, channel: string): HTMLElement {
  const element = avatar(title, channel);
  element.classList.add("group-avatar");
  return element;
}

/** Whether somebody is there, in words. */
export function presenceText(desk: Desk, user: string): string {
  const presence = desk.presences.of(user);
  if (!presence) return "";
  return presence.state === "offline" ? lastSeen(presence.last_seen) : STATES[presence.state];
}
