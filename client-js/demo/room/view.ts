// The open room: people talk without an account, and see which wire carries their words.

import { Client, ClosedError } from "@xpush/client";
import { byId, make, mount, paint } from "../dom.js";
import { read, write } from "../storage.js";
import { toast } from "../toast.js";
import type { View } from "../view.js";
import { WIRES, latency, wireSwitch } from "../wires.js";
import { Identity, shown } from "./identity.js";
import { Log } from "./log.js";
import { Meter } from "./meter.js";
import { People } from "./people.js";
import { Room, type Stage } from "./room.js";
import { Typing } from "./typing.js";

/** Rooms at `#room/NAME`, for whoever the server lets in. */
export class RoomView implements View {
  private readonly client: Client;
  private readonly me = new Identity();
  private readonly stage: Stage;
  private readonly known = new Set(["lobby", ...stored()]);
  private readonly over = new AbortController();
  private lost: ReturnType<typeof setTimeout> | undefined;
  private room: Room | undefined;

  constructor() {
    mount("room-view");
    const token = new URLSearchParams(location.search).get("token");
    this.client = new Client("/", token === null ? {} : { token });
    this.stage = {
      me: this.me,
      log: new Log(this.me),
      people: new People(
        () => this.client.session,
        (session, name) => this.greet(session, name),
      ),
      typing: new Typing(() => this.room?.write()),
      meter: new Meter(),
    };
    this.rooms();
    this.name();
    this.composer();
    this.wire();
    this.drawers();
    this.client.on("message", ({ event, data }) => {
      if (event === "wave") toast(`${shown((data as { name?: unknown } | null)?.name, "Somebody")} waves at you 👋`);
    });
  }

  /** `path`: what stands behind `#room/`. */
  route(path: string): void {
    const name = roomName(path) || "lobby";
    this.known.add(name);
    write("xpush-demo-rooms", JSON.stringify([...this.known].slice(-30)));
    list(this.known, name);
    byId("room-title").textContent = name;
    document.title = `${name} · XPUSH`;
    byId<HTMLTextAreaElement>("text").placeholder = `Message #${name}`;
    if (this.room?.name !== name) {
      this.room?.close();
      this.room = new Room(this.client, name, this.stage);
    }
    closeDrawers();
  }

  close(): void {
    this.over.abort();
    clearTimeout(this.lost);
    this.room?.close();
    this.stage.meter.stop();
    this.client.close();
  }

  private rooms(): void {
    byId("older").addEventListener("click", () => void this.room?.page());
    byId("new-room").addEventListener("submit", (event) => {
      event.preventDefault();
      const input = byId<HTMLInputElement>("room-name");
      const name = roomName(input.value);
      const problem = byId("room-problem");
      problem.hidden = name !== "";
      problem.textContent = name ? "" : "A room's name has letters, digits, - _ . and ~.";
      if (!name) return;
      input.value = "";
      location.hash = `room/${name}`;
    });
  }

  /** One's name, kept in this browser. */
  private name(): void {
    const input = byId<HTMLInputElement>("name");
    const show = (): void => {
      input.value = this.me.name;
      paint(byId("my-avatar"), this.me.name, this.me.author);
    };
    const take = (): void => {
      const before = this.me.name;
      this.me.name = input.value;
      show();
      if (this.me.name !== before) this.room?.introduce();
    };
    byId("me").addEventListener("submit", (event) => {
      event.preventDefault();
      input.blur();
      byId("text").focus();
    });
    input.addEventListener("change", take);
    show();
  }

  private composer(): void {
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
      this.room?.say(words);
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
      if (text.value.trim()) this.stage.typing.pressed();
    });
    if (matchMedia("(hover: hover)").matches) text.focus();
  }

  /** Which wire is in use, how long it takes, and the switch. */
  private wire(): void {
    const hint = byId("wire-hint");
    const banner = byId("banner");
    const show = (): void => {
      const kind = this.client.transport;
      const label = kind ? WIRES[kind] : this.client.state === "closed" ? "closed" : "connecting…";
      document.documentElement.dataset.state = this.client.state;
      document.documentElement.dataset.wire = kind ?? "";
      byId("wire").textContent = label;
      byId("pill-wire").textContent = label;
      if (!kind) {
        byId("rtt").textContent = "–";
        byId("pill-rtt").textContent = "";
      }
    };
    this.client.on("state", (state) => {
      show();
      clearTimeout(this.lost);
      if (state === "connected") banner.hidden = true;
      else if (state !== "closed") {
        // A wire that is replaced at once is nobody's worry.
        this.lost = setTimeout(() => {
          banner.textContent = "The connection is lost. What you write is kept and sent when it is back.";
          banner.hidden = false;
        }, 1500);
      }
    });
    this.client.on("transport", show);
    this.client.on("rtt", (milliseconds) => {
      const text = latency(milliseconds);
      byId("rtt").textContent = text;
      byId("pill-rtt").textContent = `${text} ms`;
    });
    this.client.on("error", (error) => {
      if (!(error instanceof ClosedError)) return;
      clearTimeout(this.lost);
      banner.textContent = `The server ended the session: ${error.message}. Reload the page to try again.`;
      banner.hidden = false;
    });
    wireSwitch(this.client, byId("switch"), hint);
    show();
  }

  private greet(session: string, name: string): void {
    this.client.send({ session }, { name: this.me.name }, { event: "wave" }).then(
      () => toast(`You waved at ${name}`),
      () => toast(`${name} is not here any more`),
    );
  }

  /** On narrow screens the two side panels slide in over the conversation. */
  private drawers(): void {
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
    const escape = (event: KeyboardEvent): void => {
      if (event.key === "Escape") closeDrawers();
    };
    addEventListener("keydown", escape, { signal: this.over.signal });
  }
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
      link.href = `#room/${name}`;
      link.append(make("span", "", name));
      if (name === current) link.setAttribute("aria-current", "page");
      const item = make("li");
      item.append(link);
      return item;
    }),
  );
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
