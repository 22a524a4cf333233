/** One of the page's views; there is one at a time. */
export interface View {
  /** The address changed within the view. */
  route(path: string): void;
  /** Another view comes. */
  close(): void;
}
