/** `plugins test FOLDER`: runs a plugin's tests where it lies. Its imports of `troupe/…` are answered for, as in the daemon, so it needs nothing installed. */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import type { ExitCode } from './run.ts';

const answer = new URL('./answer.ts', import.meta.url).href;

/** Tests are `*.test.ts` for node:test. Resolves with the exit code of the run. */
export async function testFolder(folder: string): Promise<ExitCode> {
  const dir = resolve(folder);
  const tests = readdirSync(dir).filter((name) => name.endsWith('.test.ts'));
  if (tests.length === 0) throw new Error(`${dir} holds no test: a file *.test.ts`);
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', '--import', answer, '--test', ...tests],
    { cwd: dir, stdio: 'inherit' },
  );
  return new Promise((done, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => done(code ?? 1));
  });
}
