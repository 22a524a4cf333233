// What README.md says of a new user's first message, word for word.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { XpushServer } from "./server.mjs";

const root = fileURLToPath(new URL("../../../", import.meta.url));
let server;

before(async () => {
  server = await XpushServer.start();
});

after(() => server?.stop());

test("a user registers and publishes in under ten lines", async () => {
  const readme = readFileSync(`${root}README.md`, "utf8");
  const script = /cat > hello\.mjs <<'END'\n([\s\S]*?)\nEND/.exec(readme)?.[1];
  assert.ok(script, "README.md has the script");
  assert.ok(script.split("\n").length < 10, "it is short");
  const folder = mkdtempSync(join(tmpdir(), "xpush-readme-"));
  const file = join(folder, "hello.mjs");
  const here = script
    .replace('"./client-js/', `"${pathToFileURL(root)}client-js/`)
    .replace('Platform("http://localhost:8080")', `Platform(${JSON.stringify(server.url)})`);
  writeFileSync(file, here);
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 30_000 });
    assert.match(stdout, /^chat:\S+ \{ epoch: \d+, offset: 1 \}/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
