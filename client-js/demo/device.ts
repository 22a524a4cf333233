import type { DeviceInput } from "@xpush/client/platform";
import { randomText, read, write } from "./storage.js";

/** This browser: the same device each time that somebody signs in with it. */
export function thisDevice(): DeviceInput {
  const device = read("xpush-demo-device") ?? write("xpush-demo-device", `web-${randomText()}`);
  return { device, platform: "web", name: deviceName(navigator.userAgent) };
}

/** As a person would call it. What an agent says of itself is rarely the whole truth, and this is no more than a label. */
function deviceName(agent: string): string {
  const browser = /Edg\//.test(agent) ? "Edge" : /Firefox\//.test(agent) ? "Firefox" : /Chrome\//.test(agent) ? "Chrome" : /Safari\//.test(agent) ? "Safari" : "Browser";
  const system = /iPhone|iPad/.test(agent) ? "iOS" : /Android/.test(agent) ? "Android" : /Mac OS/.test(agent) ? "macOS" : /Windows/.test(agent) ? "Windows" : /Linux/.test(agent) ? "Linux" : "";
  return system ? `${browser} on ${system}` : browser;
}
