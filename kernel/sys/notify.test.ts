import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import * as sys from './index.ts';
import { bindUnix, SOCK_DGRAM, unixSocket } from './socket.ts';

const root = mkdtempSync(join(tmpdir(), 'sys-notify-'));
const index = new URL('./index.ts', import.meta.url).href;
test.after.always(() => {
  delete process.env.NOTIFY_SOCKET;
  rmSync(root, { recursive: true });
});

test.serial('no manager, no message', (t) => {
  delete process.env.NOTIFY_SOCKET;
  t.false(sys.sdNotify('READY=1'));
  process.env.NOTIFY_SOCKET = '';
  t.false(sys.sdNotify('READY=1'));
});

for (const path of [join(root, 'notify'), `@sys-notify-test-${process.pid}`]) {
  test.serial(`one datagram to ${path.startsWith('@') ? 'an abstract socket' : 'a path'}`, (t) => {
    const fd = unixSocket(SOCK_DGRAM);
    bindUnix(fd, path);
    process.env.NOTIFY_SOCKET = path;
    t.true(sys.sdNotify('READY=1', 'STATUS=läuft'));
    const buffer = Buffer.alloc(1024);
    t.is(buffer.toString('utf8', 0, readSync(fd, buffer)), 'READY=1\nSTATUS=läuft');
    sys.close(fd);
    t.throws(() => sys.sdNotify('STOPPING=1'), { code: 'ECONNREFUSED' });
  });
}

test('descriptors of a socket unit are for the process they name, and close on exec', async (t) => {
  t.deepEqual(sys.listenFds({}), []);
  t.deepEqual(sys.listenFds({ LISTEN_PID: '1', LISTEN_FDS: '1' }), []);
  t.deepEqual(sys.listenFds({ LISTEN_PID: String(process.pid), LISTEN_FDS: 'x' }), []);
  const listener = sys.listenUnix(join(root, 'unit.sock'), 0o600);
  const script = `import('${index}').then((sys) => {
    const fds = sys.listenFds({ LISTEN_PID: String(process.pid), LISTEN_FDS: '1', LISTEN_FDNAMES: 'api' });
    console.log(JSON.stringify({ fds, cloexec: fds.map(({ fd }) => sys.isCloseOnExec(fd)) }));
    require('node:net').createServer((socket) => { socket.end('hello'); process.exitCode = 0; process.nextTick(() => process.disconnect?.()); }).listen({ fd: fds[0].fd });
  })`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit', listener.fd] });
  sys.close(listener.fd);
  try {
    const [line] = (await once(createInterface(child.stdout!), 'line')) as [string];
    t.deepEqual(JSON.parse(line), { fds: [{ fd: 3, name: 'api' }], cloexec: [true] });
    const [data] = (await once(connect(listener.path), 'data')) as [Buffer];
    t.is(data.toString(), 'hello');
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});

test('without a name a descriptor is called unknown, and what is no socket is left out', (t) => {
  const script = `import('${index}').then((sys) => console.log(JSON.stringify(sys.listenFds({ LISTEN_PID: String(process.pid), LISTEN_FDS: '2' }))))`;
  const listener = sys.listenUnix(join(root, 'second.sock'), 0o600);
  const child = spawnSync(process.execPath, ['-e', script], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit', 'ignore', listener.fd],
  });
  sys.close(listener.fd);
  t.deepEqual(JSON.parse(child.stdout), [{ fd: 4, name: 'unknown' }]);
});
