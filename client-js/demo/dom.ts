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

/** Shows the page's template of this name, and nothing else. */
export function mount(template: string): void {
  byId("view").replaceChildren(byId<HTMLTemplateElement>(template).content.cloneNode(true));
}

/** One of the page's symbols. */
export function icon(name: string): SVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "i");
  svg.append(use);
  return svg;
}

/** A button that says what it does, whether its face is a word or a symbol. */
export function button(className: string, label: string, face: string | Node, click: () => void): HTMLButtonElement {
  const element = make("button", className);
  element.type = "button";
  element.append(face);
  if (face !== label) {
    element.setAttribute("aria-label", label);
    element.title = label;
  }
  element.addEventListener("click", click);
  return element;
}

/** What went wrong, for a person. */
export function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
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
