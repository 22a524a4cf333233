/** What a page is told about its surroundings. In Node there is none of it, and nothing is ever called. */
export interface SignalEvents {
  /** The page came into sight, the network came back or became another: look whether the wire still stands. */
  awake(): void;
  /** The network is another one. */
  moved(): void;
}

/** Listens until the function that comes back is called. */
export function watchSignals(events: SignalEvents): () => void {
  const removers: (() => void)[] = [];
  const listen = (target: EventTarget | undefined, name: string, listener: () => void): void => {
    if (typeof target?.addEventListener !== "function") return;
    target.addEventListener(name, listener);
    removers.push(() => target.removeEventListener(name, listener));
  };
  if (typeof document !== "undefined") {
    listen(document, "visibilitychange", () => {
      if (document.visibilityState === "visible") events.awake();
    });
    listen(globalThis as unknown as EventTarget, "online", () => events.awake());
    listen(globalThis as unknown as EventTarget, "offline", () => events.awake());
    listen(globalThis as unknown as EventTarget, "pageshow", () => events.awake());
    const network = (navigator as { connection?: EventTarget }).connection;
    listen(network, "change", () => {
      events.moved();
      events.awake();
    });
  }
  return () => removers.forEach((remove) => remove());
}
