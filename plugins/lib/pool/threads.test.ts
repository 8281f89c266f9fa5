/** Pools that are opened when they are needed, whatever the daemon lacks just then. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import test from 'ava';

const script = `
import { createInterface } from 'node:readline';
import { openThreads } from ${JSON.stringify(new URL('./threads.ts', import.meta.url).href)};
console.log('ready');
for await (const _ of createInterface({ input: process.stdin })) {
  try {
    await openThreads(new URL('file:///nothing.ts'), { maxThreads: 1 }).destroy();
    console.log('opened');
  } catch (error) {
    console.log(error.code ?? String(error));
  }
}
`;

test('with no descriptor left no pool can be opened, and then it can', async (t) => {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill());
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const said = async (): Promise<string | undefined> => (await lines.next()).value;
  const ask = (): Promise<string | undefined> => {
    child.stdin.write('open\n');
    return said();
  };
  const limit = (files: number): void => {
    execFileSync('prlimit', ['--pid', String(child.pid), `--nofile=${files}:`]);
  };
  t.is(await said(), 'ready');
  // No number is free below it.
  limit(3);
  t.not(await ask(), 'opened');
  limit(1024);
  t.is(await ask(), 'opened');
  child.stdin.end();
  t.deepEqual(await once(child, 'exit'), [0, null]);
});
