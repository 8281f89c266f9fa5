import { appendFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { makeRig, type Rig } from './rig.ts';
import { ShimLog } from './shim-log.ts';

async function open(
  t: ExecutionContext,
): Promise<{ rig: Rig; path: string; log: ShimLog; lines(count: number): Promise<void> }> {
  const rig = await makeRig(t);
  const bundle = { path: join(rig.directory, 'bundle'), namespace: 'default', id: 'web' };
  mkdirSync(bundle.path);
  let awake: (() => void) | undefined;
  const note =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      rig.logs.push({ level, message, fields });
      awake?.();
    };
  const log = new ShimLog(bundle, {
    debug: note('debug'),
    info: note('info'),
    warn: note('warn'),
    error: note('error'),
  });
  t.teardown(() => log.close());
  return {
    rig,
    path: join(bundle.path, 'log'),
    log,
    async lines(count) {
      while (rig.logs.length < count) {
        await new Promise<void>((resolve) => {
          awake = resolve;
        });
      }
    },
  };
}

test('lines come with their level and message', async (t) => {
  const { rig, path, lines } = await open(t);
  appendFileSync(path, 'time="x" level=info msg="say \\"hi\\"" id=1\ntime="x" level=error msg=short\nnot logfmt\nhalf');
  await lines(3);
  appendFileSync(path, ' a line\n');
  await lines(4);
  t.deepEqual(
    rig.logs.map(({ level, fields }) => [level, fields.shim]),
    [
      ['debug', 'say "hi"'],
      ['error', 'time="x" level=error msg=short'],
      ['debug', 'not logfmt'],
      ['debug', 'half a line'],
    ],
  );
  t.is(rig.logs[0]?.fields.id, 'web');
});

test('a line without end is cut, and what follows it is read', async (t) => {
  const { rig, path, lines } = await open(t);
  for (let round = 0; round < 16; round++) {
    appendFileSync(path, 'x'.repeat(16_000));
    await new Promise((resolve) => setImmediate(resolve));
  }
  appendFileSync(path, '\nlevel=warning msg="after"\n');
  await lines(2);
  t.is(rig.logs[0]?.fields.shim, 'x'.repeat(8192));
  t.deepEqual([rig.logs[1]?.level, rig.logs[1]?.fields.shim], ['warn', 'after']);
});

test('a flood of lines is counted rather than passed on', async (t) => {
  const { rig, path, lines } = await open(t);
  appendFileSync(path, 'line\n'.repeat(5000));
  await lines(100);
  await new Promise((resolve) => setImmediate(resolve));
  t.true(rig.logs.length <= 301, `${rig.logs.length} lines`);
});

test('a paused reader leaves what is written to the next one', async (t) => {
  const { rig, path, log, lines } = await open(t);
  log.pause();
  appendFileSync(path, 'later\n');
  await new Promise((resolve) => setImmediate(resolve));
  t.is(rig.logs.length, 0);
  log.resume();
  await lines(1);
  t.is(rig.logs[0]?.fields.shim, 'later');
});
