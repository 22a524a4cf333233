// The page at `/`: a small messenger, and open rooms for who has no account.

import { Platform, type PlatformEvents } from "@xpush/client/platform";
import { byId } from "./dom.js";
import { MessengerView } from "./messenger/view.js";
import { RoomView } from "./room/view.js";
import type { View } from "./view.js";
import { WelcomeView } from "./welcome.js";

const platform = new Platform("", { remember: true });
let view: View | undefined;

platform.on("login", () => {
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  show(new MessengerView(platform));
});
platform.on("ended", ({ reason }) => show(new WelcomeView(platform, farewell(reason))));
addEventListener("hashchange", route);
byId("skip").addEventListener("click", (event) => {
  // A way within the page, and not an address of it.
  event.preventDefault();
  const target = document.querySelector<HTMLElement>("#write-text, #text, #door-user");
  target?.focus();
});
route();

/** `#room/NAME` is an open room; all else is the messenger's, for who is signed in. */
function route(): void {
  const path = hashPath();
  const room = /^room(?:\/(.*))?$/.exec(path);
  if (room && !(view instanceof RoomView)) return show(new RoomView());
  if (!room && (view === undefined || view instanceof RoomView)) {
    return show(platform.user === undefined ? new WelcomeView(platform) : new MessengerView(platform));
  }
  view?.route(room?.[1] ?? path);
}

function show(next: View): void {
  // The next one's page is up already: the one before may touch its own elements no more.
  view?.close();
  view = next;
  const path = hashPath();
  next.route(next instanceof RoomView ? path.replace(/^room\/?/, "") : path);
}

function hashPath(): string {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    // Half an escape sequence.
    return "";
  }
}

function farewell(reason: PlatformEvents["ended"]["reason"]): string {
  switch (reason) {
    case "requested":
      return "";
    case "revoked":
      return "You were signed out: this device, or your account, was taken off.";
    case "elsewhere":
      return "You were signed out here, since you signed in on another device.";
  }
}
