import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { ExecutionContext } from 'ava';
import { SysError } from 'troupe/sys';
import { canLaunch, type LaunchOptions, launch, maxInputBytes } from './launch.ts';
import { unlessLacking } from '../../../test/helpers/privilege.ts';

const able = unlessLacking(() => (canLaunch ? undefined : 'posix_spawn with a change of directory, glibc 2.29'));
const none: LaunchOptions = { cwd: '/', env: { PATH: '/usr/bin:/bin' }, stdin: new Uint8Array(0) };

async function run(script: string, options: Partial<LaunchOptions> = {}) {
  const { pid, stdout, stderr, exited } = launch('/bin/sh', ['-c', script], { ...none, ...options });
  const [out, err, status] = await Promise.all([text(stdout), text(stderr), exited]);
  return { pid, out, err, ...status };
}

function scratch(t: ExecutionContext): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'launch-')));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

able('output, errors and the exit come back', async (t) => {
  t.like(await run('echo out; echo err >&2; exit 7'), { out: 'out\n', err: 'err\n', code: 7, signal: undefined });
  t.like(await run('kill -9 $$'), { code: undefined, signal: 9 });
});

able('arguments, environment, directory and input arrive as they are', async (t) => {
  const directory = scratch(t);
  const input = Buffer.alloc(maxInputBytes, 'é');
  const { out } = await run('pwd; echo "$A"; cat | wc -c', {
    cwd: directory,
    env: { PATH: '/bin', A: 'x y\n€', B: undefined },
    stdin: input,
  });
  t.deepEqual(out.split('\n').slice(0, 3), [directory, 'x y', '€']);
  t.is(out.trim().split('\n').at(-1)?.trim(), `${input.length}`);
});

able('a program starts with its own session and with no signal ignored or blocked', async (t) => {
  const { pid, stdout, stderr } = launch('/bin/cat', ['/proc/self/stat', '/proc/self/status'], none);
  stderr.destroy();
  const out = await text(stdout);
  t.is(out.slice(out.lastIndexOf(')', out.indexOf('\n'))).split(' ')[4], `${pid}`);
  t.is(/SigBlk:\t0*([0-9a-f]+)/.exec(out)?.[1], '0');
  // 32 and 33 are the C library's own.
  t.is(BigInt(`0x${/SigIgn:\t([0-9a-f]+)/.exec(out)?.[1]}`) & ~0x1_8000_0000n, 0n);
});

able('a program that cannot be started is an error of its system call', (t) => {
  const directory = scratch(t);
  const file = join(directory, 'file');
  writeFileSync(file, 'no program');
  const refused = (path: string, options = none): string | undefined =>
    (t.throws(() => launch(path, [], options), { instanceOf: SysError }) as SysError).code;
  t.is(refused('/nowhere/at/all'), 'ENOENT');
  t.is(refused(file), 'EACCES');
  chmodSync(file, 0o755);
  t.is(refused(file), 'ENOEXEC');
  t.is(refused('/bin/true', { ...none, cwd: '/nowhere' }), 'ENOENT');
  t.is(refused('/bin/true', { ...none, stdin: new Uint8Array(maxInputBytes + 1) }), 'E2BIG');
  t.is(refused('/bin/tr\0ue'), 'EINVAL');
});

able('no descriptor and no zombie stays', async (t) => {
  const count = (): number => readdirSync('/proc/self/fd').length;
  await run('true');
  const before = count();
  const pids: number[] = [];
  for (let round = 0; round < 20; round++) {
    pids.push((await run('echo x')).pid);
    t.throws(() => launch('/nowhere', [], none));
  }
  t.true(count() <= before + 1, `${count()} descriptors, ${before} before`);
  for (const pid of pids) t.false(existsSync(`/proc/${pid}`));
});

able('a program inherits no more than one that Node starts', async (t) => {
  const held = openSync('/', 'r');
  t.teardown(() => closeSync(held));
  const { out } = await run('ls /proc/self/fd');
  t.is(out, execFileSync('/bin/sh', ['-c', 'ls /proc/self/fd'], { encoding: 'utf8' }));
});

able('the end of a program is noticed though a child of its keeps its output', async (t) => {
  const { stdout, stderr, exited, pid } = launch('/bin/sh', ['-c', 'sleep 1000 & exit 3'], none);
  t.is((await exited).code, 3);
  stdout.destroy();
  stderr.destroy();
  process.kill(-pid, 'SIGKILL');
  t.false(existsSync(`/proc/${pid}`));
});

able('twenty at once', async (t) => {
  const runs = await Promise.all(Array.from({ length: 20 }, (_, index) => run(`echo ${index}; exit ${index}`)));
  t.deepEqual(
    runs.map(({ out, code }) => [out, code]),
    runs.map((_, index) => [`${index}\n`, index]),
  );
});
