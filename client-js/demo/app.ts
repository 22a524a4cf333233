// The page at `/`: two people talk, and see which wire carries their words.

import { Client, ClosedError, type WireChoice, type WireKind } from "@xpush/client";
import { byId, make, paint } from "./dom.js";
import { Identity, read, shown, write } from "./identity.js";
import { Log } from "./log.js";
import { Meter } from "./meter.js";
import { People } from "./people.js";
import { Room, type Stage } from "./room.js";
import { Typing } from "./typing.js";

const WIRES: { [kind in WireKind]: string } = {
  webtransport: "WebTransport",
  websocket: "WebSocket",
  longpoll: "Long-polling",
};

const token = new URLSearchParams(location.search).get("token");
const client = new Client("/", token === null ? {} : { token });
const me = new Identity();
const stage: Stage = {
  me,
  log: new Log(me),
  people: new People(() => client.session, greet),
  typing: new Typing(() => room?.write()),
  meter: new Meter(),
};
let room: Room | undefined;

rooms();
name();
composer();
wire();
drawers();
client.on("message", ({ event, data }) => {
  if (event === "wave") toast(`${shown((data as { name?: unknown } | null)?.name, "Somebody")} waves at you 👋`);
});

/** The list of rooms, and the one that the address names. */
function rooms(): void {
  const known = new Set(["lobby", ...stored()]);
  const open = (): void => {
    let name = "";
    try {
      name = roomName(decodeURIComponent(location.hash.slice(1)));
    } catch {
      // Half an escape sequence: the lobby will do.
    }
    name ||= "lobby";
    known.add(name);
    write("xpush-demo-rooms", JSON.stringify([...known].slice(-30)));
    list(known, name);
    byId("room-title").textContent = name;
    document.title = `${name} · XPUSH`;
    byId<HTMLTextAreaElement>("text").placeholder = `Message #${name}`;
    if (room?.name !== name) {
      room?.close();
      room = new Room(client, name, stage);
    }
    closeDrawers();
  };
  byId("older").addEventListener("click", () => void room?.page());
  byId("new-room").addEventListener("submit", (event) => {
    event.preventDefault();
    const input = byId<HTMLInputElement>("room-name");
    const name = roomName(input.value);
    const problem = byId("room-problem");
    problem.hidden = name !== "";
    problem.textContent = name ? "" : "A room's name has letters, digits, - _ . and ~.";
    if (!name) return;
    input.value = "";
    location.hash = name;
  });
  addEventListener("hashchange", open);
  open();
}

function stored(): string[] {
  try {
    const list: unknown = JSON.parse(read("xpush-demo-rooms") ?? "[]");
    return Array.isArray(list) ? list.filter((name): name is string => typeof name === "string" && name === roomName(name)) : [];
  } catch {
    return [];
  }
}

/** What is left of `text` in the grammar of channels. */
function roomName(text: string): string {
  return text
    .trim()
    .replace(/^#/, "")
    .replace(/\s+/g, "-")
    .replace(/[^A-Za-z0-9._~-]/g, "")
    .slice(0, 48);
}

function list(known: ReadonlySet<string>, current: string): void {
  byId("rooms").replaceChildren(
    ...[...known].map((name) => {
      const link = make("a");
      link.href = `#${name}`;
      link.append(make("span", "", name));
      if (name === current) link.setAttribute("aria-current", "page");
      const item = make("li");
      item.append(link);
      return item;
    }),
  );
}

/** One's name, kept in this browser. */
function name(): void {
  const input = byId<HTMLInputElement>("name");
  const show = (): void => {
    input.value = me.name;
    paint(byId("my-avatar"), me.name, me.author);
  };
  const take = (): void => {
    const before = me.name;
    me.name = input.value;
    show();
    if (me.name !== before) room?.introduce();
  };
  byId("me").addEventListener("submit", (event) => {
    event.preventDefault();
    input.blur();
    byId("text").focus();
  });
  input.addEventListener("change", take);
  show();
}

function composer(): void {
  const form = byId<HTMLFormElement>("composer");
  const text = byId<HTMLTextAreaElement>("text");
  const fit = (): void => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight}px`;
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const words = text.value.trim();
    if (!words) return;
    room?.say(words);
    text.value = "";
    fit();
    text.focus();
  });
  text.addEventListener("keydown", (event) => {
    // Enter ends an input method's word before it ends a message.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  text.addEventListener("input", () => {
    fit();
    if (text.value.trim()) stage.typing.pressed();
  });
  if (matchMedia("(hover: hover)").matches) text.focus();
}

/** Which wire is in use, how long it takes, and the switch. */
function wire(): void {
  const hint = byId("wire-hint");
  const banner = byId("banner");
  const show = (): void => {
    const kind = client.transport;
    const label = kind ? WIRES[kind] : client.state === "closed" ? "closed" : "connecting…";
    document.documentElement.dataset.state = client.state;
    document.documentElement.dataset.wire = kind ?? "";
    byId("wire").textContent = label;
    byId("pill-wire").textContent = label;
    if (!kind) {
      byId("rtt").textContent = "–";
      byId("pill-rtt").textContent = "";
    }
  };
  let lost: ReturnType<typeof setTimeout> | undefined;
  client.on("state", (state) => {
    show();
    clearTimeout(lost);
    if (state === "connected") banner.hidden = true;
    else if (state !== "closed") {
      // A wire that is replaced at once is nobody's worry.
      lost = setTimeout(() => {
        banner.textContent = "The connection is lost. What you write is kept and sent when it is back.";
        banner.hidden = false;
      }, 1500);
    }
  });
  client.on("transport", show);
  client.on("rtt", (milliseconds) => {
    const text = milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0);
    byId("rtt").textContent = text;
    byId("pill-rtt").textContent = `${text} ms`;
  });
  client.on("error", (error) => {
    if (!(error instanceof ClosedError)) return;
    clearTimeout(lost);
    banner.textContent = `The server ended the session: ${error.message}. Reload the page to try again.`;
    banner.hidden = false;
  });
  for (const input of byId("switch").querySelectorAll("input")) {
    if (input.value === "webtransport" && typeof WebTransport === "undefined") {
      input.disabled = true;
      hint.textContent = "This browser has no WebTransport.";
    }
    input.addEventListener("change", () => {
      const choice = input.value as WireChoice;
      hint.textContent = choice === "auto" ? "" : "Switching…";
      client.use(choice).then(
        () => input.checked && (hint.textContent = choice === "auto" ? "" : "Only this wire is used."),
        (error: unknown) => {
          if (input.checked) hint.textContent = `Not to be had just now, and tried again: ${String((error as Error).message)}`;
        },
      );
    });
  }
  show();
}

function greet(session: string, name: string): void {
  client.send({ session }, { name: me.name }, { event: "wave" }).then(
    () => toast(`You waved at ${name}`),
    () => toast(`${name} is not here any more`),
  );
}

function toast(text: string): void {
  const element = make("p", "toast", text);
  byId("toasts").append(element);
  setTimeout(() => element.remove(), 4000);
}

/** On narrow screens the two side panels slide in over the conversation. */
function drawers(): void {
  for (const side of ["left", "right"]) {
    byId(`open-${side}`).addEventListener("click", () => {
      const panel = byId(side);
      const open = !panel.classList.contains("open");
      closeDrawers();
      // Where the panel stands beside the conversation, there is nothing to slide.
      if (!open || getComputedStyle(panel).position !== "fixed") return;
      panel.classList.add("open");
      byId("veil").hidden = false;
      byId(`open-${side}`).setAttribute("aria-expanded", "true");
      panel.querySelector<HTMLElement>("a, input, button")?.focus();
    });
  }
  byId("veil").addEventListener("click", closeDrawers);
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") closeDrawers();
  });
}

function closeDrawers(): void {
  byId("veil").hidden = true;
  for (const side of ["left", "right"]) {
    const opener = byId(`open-${side}`);
    if (byId(side).classList.contains("open")) opener.focus();
    byId(side).classList.remove("open");
    opener.setAttribute("aria-expanded", "false");
  }
}
