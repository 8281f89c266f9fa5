import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { rootTest } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

const root = mkdtempSync(join(tmpdir(), 'sys-listen-'));
test.after.always(() => rmSync(root, { recursive: true }));

async function serve(listener: sys.UnixListener, answer: string): Promise<net.Server> {
  const server = net.createServer((socket) => socket.end(answer)).listen({ fd: listener.fd });
  await once(server, 'listening');
  return server;
}

async function ask(path: string): Promise<string> {
  const socket = net.connect(path);
  const [data] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  return data.toString();
}

const closed = (server: net.Server): Promise<unknown> => once(server.close(), 'close');

rootTest('mode and owner are exact, parents are made 0711, nothing is left beside', async (t) => {
  const path = join(root, 'new', 'deeper', 'api.sock');
  const listener = sys.listenUnix(path, 0o662, 12, 34);
  t.like(sys.fstatat(sys.AT_FDCWD, path), { kind: 'socket', uid: 12, gid: 34 });
  t.is(statSync(path).mode & 0o7777, 0o662);
  for (const parent of ['new', 'new/deeper']) t.is(statSync(join(root, parent)).mode & 0o7777, 0o711);
  t.deepEqual(readdirSync(join(root, 'new', 'deeper')), ['api.sock']);
  t.true(sys.isCloseOnExec(listener.fd));
  const server = await serve(listener, 'hello');
  t.is(await ask(path), 'hello');
  await closed(server);
  t.true(sys.tryFstatat(sys.AT_FDCWD, path) !== undefined, 'libuv has not unlinked it');
  listener.unlink();
  t.is(sys.tryFstatat(sys.AT_FDCWD, path), undefined);
});

test('an existing directory keeps its mode', (t) => {
  const directory = join(root, 'kept');
  mkdirSync(directory);
  chmodSync(directory, 0o1777);
  const listener = sys.listenUnix(join(directory, 's'), 0o600);
  t.is(statSync(directory).mode & 0o7777, 0o1777);
  sys.close(listener.fd);
});

test('what is not a socket is left alone', (t) => {
  for (const [name, make] of [
    ['file', (path: string) => writeFileSync(path, 'mine')],
    ['directory', (path: string) => mkdirSync(path)],
    ['symlink', (path: string) => symlinkSync('/nowhere', path)],
    ['fifo', (path: string) => sys.mkfifo(path, 0o600)],
  ] as const) {
    const path = join(root, `not-${name}`);
    make(path);
    t.throws(() => sys.listenUnix(path, 0o600), { code: 'EEXIST', message: new RegExp(`a ${name} is there`) });
    t.is(sys.fstatat(sys.AT_FDCWD, path).kind, name);
  }
});

test('a socket that is listened on is refused, one left behind is replaced', async (t) => {
  const path = join(root, 'busy.sock');
  const first = sys.listenUnix(path, 0o600);
  t.throws(() => sys.listenUnix(path, 0o600), { code: 'EADDRINUSE', message: /another process listens/ });
  t.true(sys.isListening(path));
  sys.close(first.fd);
  const second = sys.listenUnix(path, 0o600);
  const server = await serve(second, 'second');
  t.is(await ask(path), 'second');
  first.unlink();
  t.true(sys.isListening(path), 'unlink of the first does not take the second away');
  await closed(server);
});

test('a successor takes over without a refused connection', async (t) => {
  const path = join(root, 'swap.sock');
  let server = await serve(sys.listenUnix(path, 0o600), '0');
  let running = true;
  let connects = 0;
  const clients = (async () => {
    while (running) {
      t.regex(await ask(path), /^\d+$/);
      connects++;
    }
  })();
  for (let i = 1; i <= 20; i++) {
    const next = await serve(sys.listenUnix(path, 0o600, -1, -1, { replace: true }), String(i));
    // What was connected to the old one before the rename is still accepted by it.
    while ((await ask(path)) !== String(i)) t.fail('the path leads to the new one');
    await new Promise((resolve) => setImmediate(resolve));
    await closed(server);
    server = next;
  }
  running = false;
  await clients;
  t.true(connects > 0);
  await closed(server);
});

test('a kept duplicate lets the next server accept what came in between', async (t) => {
  const path = join(root, 'dup.sock');
  const listener = sys.listenUnix(path, 0o600);
  const kept = sys.dup(listener.fd);
  await closed(await serve(listener, 'first'));
  const waiting = ask(path);
  const server = await serve({ ...listener, fd: kept }, 'second');
  t.is(await waiting, 'second');
  await closed(server);
});

test('paths: 107 bytes are taken, 108 are refused with the numbers, relative and abstract ones too', async (t) => {
  const directory = join(root, 'n'.repeat(60));
  mkdirSync(directory);
  const longest = `${directory}/${'x'.repeat(106 - directory.length)}`;
  t.is(Buffer.byteLength(longest), 107);
  const listener = sys.listenUnix(longest, 0o600);
  const server = await serve(listener, 'long');
  t.is(await ask(longest), 'long');
  await closed(server);
  const error = t.throws(() => sys.listenUnix(`${longest}x`, 0o600), { code: 'ENAMETOOLONG' });
  t.regex(error?.message ?? '', /at most 107 bytes, this one 108/);
  // Bytes, not characters.
  t.throws(() => sys.listenUnix(`${longest.slice(0, -1)}é`, 0o600), { code: 'ENAMETOOLONG' });
  for (const path of ['@abstract', '\0abstract', 'relative.sock', `${root}/`]) {
    t.throws(() => sys.listenUnix(path, 0o600), { code: 'EINVAL' });
  }
});

test('a failure leaves no directory and no descriptor', (t) => {
  const directory = join(root, 'failure');
  mkdirSync(directory);
  const before = readdirSync('/proc/self/fd').length;
  t.throws(() => sys.listenUnix(join(directory, 's'), 0o600, 1, Number.NaN));
  t.deepEqual(readdirSync(directory), []);
  t.is(readdirSync('/proc/self/fd').length, before);
});
