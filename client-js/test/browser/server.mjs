// The real server, on free ports with a store of its own, and Chromium.

import { spawn } from "node:child_process";
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const BINARY = process.env.XPUSH_BIN ?? fileURLToPath(new URL("../../../target/debug/xpush", import.meta.url));

/** A TCP port that was free just now. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A port that is free for TCP and UDP. */
async function freeTlsPort() {
  for (;;) {
    const port = await freePort();
    const socket = createSocket("udp4");
    const free = await new Promise((resolve) => {
      socket.once("error", () => resolve(false));
      socket.bind(port, "127.0.0.1", () => resolve(true));
    });
    socket.close();
    if (free) return port;
  }
}

/** Asks until the answer is true. There is no fixed wait: a slow machine gets its time. */
export async function until(what, condition, deadline = 30_000) {
  const end = Date.now() + deadline;
  for (;;) {
    if (await condition()) return;
    if (Date.now() > end) throw new Error(`after ${deadline} ms still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/**
 * Where xpush-test-servers runs the tests, a server keeps what it knows in the stores of a cluster: gives what its
 * environment says of them. Its part of them goes by the name of its folder, and so is the same after a restart.
 */
function share(data) {
  const keys = process.env.XPUSH_TEST_KEYS;
  if (!keys) return {};
  copyFileSync(keys, join(data, "dev-keys.toml"));
  const mark = "XPUSH_TEST_NODE_";
  const told = Object.entries(process.env).filter(([name]) => name.startsWith(mark));
  const name = basename(data);
  return {
    ...Object.fromEntries(told.map(([name, value]) => [`XPUSH_${name.slice(mark.length)}`, value])),
    XPUSH_REDIS__PREFIX: name,
    XPUSH_MONGODB__DATABASE: name,
    XPUSH_ZOOKEEPER__ROOT: `/${name}`,
  };
}

export class XpushServer {
  #child;
  #output = "";

  static async start() {
    if (!existsSync(BINARY)) throw new Error(`there is no ${BINARY}: run cargo build, or set XPUSH_BIN`);
    const server = new XpushServer();
    server.data = mkdtempSync(join(tmpdir(), "xpush-browser-"));
    server.http = await freePort();
    server.tls = await freeTlsPort();
    server.url = `http://127.0.0.1:${server.http}`;
    await server.run();
    if (process.env.XPUSH_TEST_KEYS) await server.#openRegistration();
    return server;
  }

  /** A node alone is in development, where everybody may become a user; one of a cluster never is. */
  async #openRegistration() {
    const key = /^api_key = "(.*)"$/m.exec(readFileSync(join(this.data, "dev-keys.toml"), "utf8"))[1];
    const answer = await fetch(`${this.url}/v1/apps/default`, {
      method: "PATCH",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ policy: { registration: "open" } }),
    });
    if (!answer.ok) throw new Error(`the policy can't be changed: ${await answer.text()}`);
  }

  /** Starts it again on the same ports and the same store. */
  async run() {
    const args = ["serve", "--http", `127.0.0.1:${this.http}`, "--tls", `127.0.0.1:${this.tls}`, "--data", this.data];
    // Its configuration is ours alone: XPUSH_BIN would be a key that it does not know.
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("XPUSH_")));
    Object.assign(env, share(this.data));
    this.#child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"], env });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on("data", (chunk) => (this.#output = (this.#output + chunk).slice(-20_000)));
    }
    await until("the server is ready", async () => {
      if (this.#child.exitCode !== null) throw new Error(`the server ended:\n${this.#output}`);
      try {
        return (await fetch(`${this.url}/readyz`)).ok;
      } catch {
        return false;
      }
    });
  }

  /** kill -9, and waits until it is gone. */
  async kill() {
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      this.#child.kill("SIGKILL");
      await gone;
    }
  }

  async stop() {
    await this.kill();
    rmSync(this.data, { recursive: true, force: true });
  }

  /** The answer of `/v1/tickets`, to be changed on its way to a page. */
  async ticket(body) {
    return (await fetch(`${this.url}/v1/tickets`, { method: "POST", body })).json();
  }
}

export function launch() {
  const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
