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
  const child = spawn(process.execPath, ['node_modules/ava/entrypoints/cli.js', ...patterns], {
    cwd: checkout,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  // Lines of its reporter: `✔ title`, `✘ [fail]: title`, `- [skip] title`, `✘ FILE exited …`; details of failures come at the end.
  let broken = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    if (/^ {2}✔ /.test(line)) counts.passed += 1;
    else if (/^ {2}✘ \[fail\]/.test(line)) counts.failed += 1;
    else if (/^ {2}- \[skip\]/.test(line)) counts.skipped += 1;
    else if (
      /^ {2}(✘ |Uncaught exception|Unhandled rejection)/.test(line) ||
      /^ {2}\d+ tests? (were pending|remaining)/.test(line)
    )
      broken += 1;
  }
  if (child.exitCode === null) await new Promise((resolve) => child.once('exit', resolve));
  // A file that dies or times out fails as one, whatever of it had passed.
  counts.failed += broken;
  if (child.exitCode !== 0 && counts.failed === 0) counts.failed = 1;
}

if (process.argv.includes('--all')) {
  await run('types', ['node_modules/typescript/bin/tsc', '--noEmit', '-p', '.']);
  await run('lint and format', ['node_modules/@biomejs/biome/bin/biome', 'check', '.']);
}
await tests();

// As root nothing is missing that a test could want: what is skipped then is not tested anywhere.
const skippedFails = process.env.CI === 'true' && process.getuid?.() === 0 && counts.skipped > 0;
if (skippedFails) console.log(`${counts.skipped} tests were skipped, though this is root`);
console.log(
  `${counts.passed} passed, ${counts.failed} failed${counts.skipped === 0 ? '' : `, ${counts.skipped} skipped`}`,
);
process.exit(counts.failed > 0 || skippedFails ? 1 : 0);
