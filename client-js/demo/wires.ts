import type { Client, WireChoice, WireKind } from "@xpush/client";
import { reason } from "./dom.js";

export const WIRES: { readonly [kind in WireKind]: string } = {
  webtransport: "WebTransport",
  websocket: "WebSocket",
  longpoll: "Long-polling",
};

/** Milliseconds, as precise as they are of use. */
export function latency(milliseconds: number): string {
  return milliseconds < 10 ? milliseconds.toFixed(1) : milliseconds.toFixed(0);
}

/** Lets a person choose the wire by the radio buttons in `fieldset`. */
export function wireSwitch(client: Client, fieldset: HTMLElement, hint: HTMLElement): void {
  for (const input of fieldset.querySelectorAll("input")) {
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
          if (input.checked) hint.textContent = `Not to be had just now, and tried again: ${reason(error)}`;
        },
      );
    });
  }
}
