/**
 * Runs the tests and counts them.
 *
 *   run.ts                 all tests, then `N passed, N failed`
 *   run.ts --all           types, lint and format before them
 *   run.ts PATTERN …       only these files
 */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const checkout = fileURLToPath(new URL('..', import.meta.url));
const patterns = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const counts = { passed: 0, failed: 0, skipped: 0 };

/** Runs a program of the pinned Node; true when it exits 0. */
async function run(name: string, args: readonly string[]): Promise<void> {
  const began = performance.now();
  const child = spawn(process.execPath, args, { cwd: checkout, stdio: ['ignore', 'inherit', 'inherit'] });
  const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  if (code === 0) counts.passed += 1;
  else counts.failed += 1;
  console.log(`${code === 0 ? '✔' : '✖'} ${name} (${seconds} s)`);
}

async function tests(): Promise<void> {
  const child = spawn(process.execPath, ['node_modules/ava/entrypoints/cli.js', '--tap', ...patterns], {
    cwd: checkout,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // TAP 13: `ok 1 - file › title`, `ok 2 - title # SKIP`, and a failure's details indented below its `not ok`.
  let details = false;
  for await (const line of createInterface({ input: child.stdout })) {
    const outcome = /^(not )?ok \d+ - (.*?)(?: # (SKIP|TODO).*)?$/.exec(line);
    if (outcome === null) {
      if (details && /^\s/.test(line)) console.log(line);
      continue;
    }
    const [, not, title, directive] = outcome;
    details = not !== undefined;
    if (directive !== undefined) counts.skipped += 1;
    else if (not === undefined) counts.passed += 1;
    else counts.failed += 1;
    console.log(`${directive !== undefined ? '–' : details ? '✖' : '✔'} ${title}${directive === undefined ? '' : ' (skipped)'}`);
  }
  if (child.exitCode === null) await new Promise((resolve) => child.once('exit', resolve));
  if (child.exitCode !== 0 && counts.failed === 0) {
    console.log('✖ the test runner itself failed');
    counts.failed += 1;
  }
}

if (process.argv.includes('--all')) {
  await run('types', ['node_modules/typescript/bin/tsc', '--noEmit', '-p', '.']);
  await run('lint and format', ['node_modules/@biomejs/biome/bin/biome', 'check', '.']);
}
await tests();

// As root nothing is missing that a test could want: what is skipped then is not tested anywhere.
const skippedFails = process.env.CI === 'true' && process.getuid?.() === 0 && counts.skipped > 0;
if (skippedFails) console.log(`${counts.skipped} tests were skipped, though this is root`);
console.log(`${counts.passed} passed, ${counts.failed} failed${counts.skipped === 0 ? '' : `, ${counts.skipped} skipped`}`);
process.exit(counts.failed > 0 || skippedFails ? 1 : 0);
