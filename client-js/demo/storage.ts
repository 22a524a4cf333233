// What this browser keeps for the page.

export function read(key: string): string | undefined {
  try {
    return localStorage.getItem(key) ?? undefined;
  } catch {
    return undefined;
  }
}

export function write(key: string, value: string): string {
  try {
    localStorage.setItem(key, value);
  } catch {
    // A page without storage forgets; nothing else changes.
  }
  return value;
}

export function randomText(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
