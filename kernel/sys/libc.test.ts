import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { AT_FDCWD, mkdirat, openat, openLibrary, SysError } from './index.ts';

const sys = new URL('./index.ts', import.meta.url).href;

test('importing loads no native code; the first call does', (t) => {
  const script = `
    const { readFileSync } = require('node:fs');
    const has = () => readFileSync('/proc/self/maps', 'latin1').includes('koffi.node');
    import('${sys}').then((sys) => {
      const before = has();
      sys.gettid();
      console.log(JSON.stringify([before, has()]));
    });`;
  const child = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  t.is(child.stdout, '[false,true]\n', child.stderr);
});

test('a NUL in a path is refused, not cut off', (t) => {
  for (const path of ['/tmp\0/x', Buffer.from('/tmp\0/x')]) {
    const error = t.throws(() => openat(AT_FDCWD, path, 0), { instanceOf: SysError });
    t.is(error?.code, 'EINVAL');
  }
});

test('bytes need no NUL of their own and are not changed', (t) => {
  const root = mkdtempSync(join(tmpdir(), 'sys-libc-'));
  try {
    const path = Buffer.from(`${root}/aXb`);
    path[path.length - 2] = 0xff;
    mkdirat(AT_FDCWD, path.subarray(), 0o700);
    t.deepEqual(readdirSync(Buffer.from(root), { encoding: 'buffer' }), [Buffer.from([0x61, 0xff, 0x62])]);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test('another library is bound by name, the first that is there', (t) => {
  t.is(openLibrary('libnosuch.so.7'), undefined);
  const library = openLibrary('libnosuch.so.7', 'libc.so.6');
  const memcpy = library?.bind<(to: Uint8Array, from: bigint, size: number) => undefined>('memcpy', 'void *', [
    'void *',
    'void *',
    'size_t',
  ]);
  const from = Buffer.alloc(128, 'abc');
  const to = Buffer.alloc(128);
  memcpy?.(to, library!.address(from), 128);
  t.deepEqual(to, from);
  t.throws(() => library!.bind('no_such_symbol', 'int', []), { message: /no_such_symbol/ });
});

/** Makes, opens and fails on purpose in a loop; each fault has its own errno, so that one of another thread would be noticed. */
function hammer(directory: string, rounds: number): string {
  return `
    const { parentPort } = require('node:worker_threads');
    import('${sys}').then((sys) => {
      const fs = require('node:fs');
      const code = (act) => { try { act(); return 'none'; } catch (error) { return error.code; } };
      const directory = ${JSON.stringify(directory)};
      sys.prepareSystemCalls();
      fs.mkdirSync(directory);
      const fd = sys.openat(sys.AT_FDCWD, directory, fs.constants.O_DIRECTORY);
      parentPort.postMessage('running');
      const wrong = [];
      for (let i = 0; i < ${rounds}; i++) {
        const name = Buffer.from('n' + i);
        sys.mkdirat(fd, name, 0o700);
        const codes = [
          code(() => sys.mkdirat(fd, name, 0o700)),
          code(() => sys.openat(fd, 'absent', 0)),
          code(() => sys.readlinkat(fd, name)),
          code(() => sys.openat(-5, 'x', 0)),
          code(() => sys.unlinkat(fd, name)),
        ].join();
        if (codes !== 'EEXIST,ENOENT,EINVAL,EBADF,EISDIR') wrong.push(codes);
        if (sys.fstatat(fd, name).kind !== 'directory') wrong.push('kind');
        sys.unlinkat(fd, name, sys.AT_REMOVEDIR);
      }
      sys.close(fd);
      process.on('warning', (warning) => wrong.push(String(warning)));
      setImmediate(() => parentPort.postMessage(wrong));
    });`;
}

test('four workers call at once, each with its own errno', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'sys-libc-'));
  try {
    const results = await Promise.all(
      [0, 1, 2, 3].map(
        (i) =>
          new Promise<unknown>((resolve, reject) => {
            const worker = new Worker(hammer(join(root, `w${i}`), 2000), { eval: true });
            worker.on('message', (message) => message !== 'running' && resolve(message));
            worker.on('error', reject);
            worker.on('exit', (code) => reject(new Error(`ended with ${code} before its result`)));
          }),
      ),
    );
    t.deepEqual(results, [[], [], [], []]);
  } finally {
    rmSync(root, { recursive: true });
  }
});

// Without `prepareSystemCalls` the process aborts here sooner or later: libc.ts says why.
test('workers that are terminated in the middle of calls leave the others unharmed', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'sys-libc-'));
  try {
    for (let round = 0; round < 5; round++) {
      const workers = [0, 1, 2, 3].map((i) => new Worker(hammer(join(root, `r${round}w${i}`), 1e9), { eval: true }));
      await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
      await Promise.all(workers.map((worker) => worker.terminate()));
      t.is(t.throws(() => openat(AT_FDCWD, join(root, 'absent'), 0), { instanceOf: SysError })?.code, 'ENOENT');
    }
  } finally {
    rmSync(root, { recursive: true });
  }
});
