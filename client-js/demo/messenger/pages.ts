import type { Page, PageOptions } from "@xpush/client/platform";

/** Pages that are read of one list: what is beyond is nothing that a person looks through. */
const PAGES = 10;

/** All that a paged list has, within reason. */
export async function everyPage<T>(read: (options: PageOptions) => Promise<Page<T>>): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  for (let i = 0; i < PAGES; i++) {
    const page = await read({ limit: 100, ...(cursor !== undefined && { cursor }) });
    items.push(...page.items);
    cursor = page.next;
    if (cursor === undefined) break;
  }
  return items;
}
