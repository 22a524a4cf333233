// Bundles each test of this folder and has node's test runner run them. Names in `process.argv` choose some.

import { spawnSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const folder = fileURLToPath(new URL(".", import.meta.url));
const out = join(folder, "../build/test");
const names = readdirSync(folder).filter((name) => name.endsWith(".test.ts"));
const chosen = names.filter((name) => process.argv.length < 3 || process.argv.slice(2).some((word) => name.includes(word)));

rmSync(out, { recursive: true, force: true });
await build({
  entryPoints: chosen.map((name) => join(folder, name)),
  outdir: out,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  target: "node20",
  sourcemap: "inline",
  packages: "external",
  logLevel: "warning",
});
const tests = chosen.map((name) => join(out, name.replace(/\.ts$/, ".mjs")));
const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...tests], {
  cwd: join(folder, ".."),
  stdio: "inherit",
});
process.exitCode = status ?? 1;
