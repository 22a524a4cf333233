import { ClosedError, type Client } from "@xpush/client";
import { byId } from "../dom.js";
import { WIRES, latency } from "../wires.js";

/** Milliseconds without a connection before anybody is told: a wire that is replaced at once is nobody's worry. */
const PATIENCE = 1_500;

/** Shows the wire in use and its latency, and says when there is none. */
export class Status {
  private readonly banner = byId("banner");
  private readonly offs: (() => void)[] = [];
  private lost: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly client: Client) {
    this.offs.push(
      client.on("state", (state) => {
        this.show();
        clearTimeout(this.lost);
        if (state === "connected") this.banner.hidden = true;
        else if (state !== "closed") this.lost = setTimeout(() => this.say(), PATIENCE);
      }),
      client.on("transport", () => this.show()),
      client.on("rtt", () => this.show()),
      client.on("error", (error) => {
        if (error instanceof ClosedError) this.say(`The server ended the session: ${error.message}. Reload to try again.`);
      }),
    );
    this.show();
  }

  stop(): void {
    clearTimeout(this.lost);
    for (const off of this.offs) off();
  }

  private show(): void {
    const { transport, rtt, state } = this.client;
    const root = document.documentElement;
    root.dataset.state = state;
    root.dataset.wire = transport ?? "";
    const text = transport
      ? WIRES[transport] + (rtt === undefined ? "" : ` · ${latency(rtt)} ms`)
      : state === "closed"
        ? "closed"
        : navigator.onLine
          ? "connecting…"
          : "offline";
    byId("badge-text").textContent = text;
    byId("connection-now").textContent = text;
  }

  private say(text?: string): void {
    const why = navigator.onLine ? "The connection is lost." : "You are offline.";
    this.banner.textContent = text ?? `${why} What you write is kept, and sent when it is back.`;
    this.banner.hidden = false;
  }
}
