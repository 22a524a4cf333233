/** The element of this id; the page has it. */
export function byId<T extends Element = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element as unknown as T;
}

/** A new element. Its text is text: no markup comes from anyone's words. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  text = "",
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** A coloured square with somebody's initials. */
export function avatar(name: string, key: string): HTMLElement {
  const element = make("span", "avatar");
  paint(element, name, key);
  element.setAttribute("aria-hidden", "true");
  return element;
}

/** `key` gives the colour, so that it stays when the name changes. */
export function paint(element: HTMLElement, name: string, key: string): void {
  let hash = 0;
  for (let i = 0; i < key.length; i++) hash = (hash * 31 + key.charCodeAt(i)) >>> 0;
  // The golden angle spreads neighbours over the circle.
  element.style.setProperty("--hue", String(Math.round((hash * 137.508) % 360)));
  element.textContent = (name.match(/[\p{L}\p{N}]+/gu) ?? ["?"]).slice(0, 2).map((word) => [...word][0]).join("");
}
