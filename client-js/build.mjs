// Builds dist/: the library (ESM, classic script, types) and the demo page. What is committed there is what the
// server has in its binary, so the same sources give the same bytes. `--check` compares instead of writing.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const root = fileURLToPath(new URL(".", import.meta.url));
const check = process.argv.includes("--check");
const dist = join(root, "dist");
// Source maps name their sources relative to themselves: the copy to compare with stands as deep as dist/.
const out = check ? mkdtempSync(join(root, ".dist-")) : dist;

/** The budget for what a page loads, gzipped. */
const ESM_LIMIT = 15_000;

const common = {
  absWorkingDir: root,
  bundle: true,
  minify: true,
  sourcemap: true,
  charset: "utf8",
  legalComments: "none",
  logLevel: "warning",
  // A field is an assignment: what the standard says beyond that is of no use here, and 3 % of the library.
  tsconfigRaw: { compilerOptions: { target: "es2022", useDefineForClassFields: false } },
};

/** The page and the platform's part load the library as the server serves it, beside themselves. */
const library = {
  name: "library",
  setup(build) {
    const beside = (name) => () => ({ path: `./${name}`, external: true });
    build.onResolve({ filter: /^@xpush\/client$/ }, beside("xpush.js"));
    build.onResolve({ filter: /^@xpush\/client\/platform$/ }, beside("xpush-platform.js"));
    build.onResolve({ filter: /^\.\.\/index\.js$/ }, beside("xpush.js"));
  },
};

try {
  if (!check) rmSync(dist, { recursive: true, force: true });
  mkdirSync(join(out, "demo"), { recursive: true });
  await build({ ...common, entryPoints: ["src/index.ts"], outfile: join(out, "xpush.js"), format: "esm", target: "es2020" });
  await build({
    ...common,
    entryPoints: ["src/index.ts"],
    outfile: join(out, "xpush.classic.js"),
    format: "iife",
    globalName: "XPUSH",
    // The oldest that esbuild writes async functions for. Older browsers speak long-polling without this library.
    target: "es2017",
  });
  await build({
    ...common,
    entryPoints: ["src/platform/index.ts"],
    outfile: join(out, "xpush-platform.js"),
    format: "esm",
    target: "es2020",
    plugins: [library],
  });
  await build({
    ...common,
    entryPoints: ["demo/app.ts"],
    outfile: join(out, "demo/app.js"),
    format: "esm",
    target: "es2020",
    sourcemap: false,
    plugins: [library],
  });
  cpSync(join(root, "demo/index.html"), join(out, "demo/index.html"));
  await build({
    ...common,
    entryPoints: ["demo/style.css"],
    outfile: join(out, "demo/style.css"),
    target: ["chrome111", "firefox113", "safari16.4"],
    sourcemap: false,
  });
  execFileSync(
    process.execPath,
    [
      join(root, "node_modules/typescript/bin/tsc"),
      "-p",
      join(root, "tsconfig.json"),
      "--noEmit",
      "false",
      "--declaration",
      "--emitDeclarationOnly",
      "--rootDir",
      join(root, "src"),
      "--outDir",
      join(out, "types"),
    ],
    { stdio: "inherit" },
  );
  if (check) compare();
  else report();
} finally {
  if (check) rmSync(out, { recursive: true, force: true });
}

function files(folder) {
  return readdirSync(folder, { recursive: true })
    .filter((name) => statSync(join(folder, name)).isFile())
    .sort();
}

function compare() {
  const [built, committed] = [files(out), files(dist)];
  const stale = [...new Set([...built, ...committed])].filter((name) => {
    if (!built.includes(name) || !committed.includes(name)) return true;
    return !readFileSync(join(out, name)).equals(readFileSync(join(dist, name)));
  });
  if (stale.length === 0) return console.log(`dist/ is what the sources give (${built.length} files)`);
  console.error(`dist/ is stale, run \`npm run build\`:\n  ${stale.join("\n  ")}`);
  process.exitCode = 1;
}

function report() {
  for (const name of ["xpush.js", "xpush-platform.js", "xpush.classic.js", "demo/app.js", "demo/style.css", "demo/index.html"]) {
    const bytes = readFileSync(join(dist, name));
    const zipped = gzipSync(bytes, { level: 9 }).length;
    console.log(`${name.padEnd(18)} ${String(bytes.length).padStart(7)} B  ${String(zipped).padStart(6)} B gzipped`);
    if (name === "xpush.js" && zipped > ESM_LIMIT) {
      console.error(`${name} is over its budget of ${ESM_LIMIT} B`);
      process.exitCode = 1;
    }
  }
  console.log(`written to ${relative(process.cwd(), dist) || "."}`);
}
