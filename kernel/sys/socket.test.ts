import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, linkSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { rootTest } from '../../test/helpers/privilege.ts';
import * as sys from './index.ts';

const root = mkdtempSync(join(tmpdir(), 'sys-socket-'));
test.after.always(() => rmSync(root, { recursive: true }));

rootTest('the credentials of a client are those of the process that connected', async (t) => {
  const path = join(root, 'peer');
  const server = net.createServer().listen(path);
  await once(server, 'listening');
  const script = `process.setgid(65534); process.setuid(65533); require('node:net').connect(${JSON.stringify(path)}).resume();`;
  // The directory is ours alone, so the client's uid comes to it only because the path is opened up.
  chmodSync(root, 0o711);
  chmodSync(path, 0o666);
  const child = spawn(process.execPath, ['-e', script], { stdio: 'inherit' });
  const [socket] = (await once(server, 'connection')) as [net.Socket];
  const fd = sys.socketFd(socket);
  t.deepEqual(sys.peerCredentials(fd ?? -1), { pid: child.pid, uid: 65533, gid: 65534 });
  socket.destroy();
  t.is(sys.socketFd(socket), undefined);
  await once(child, 'exit');
  server.close();
});

test('credentials of what is no socket', (t) => {
  sys.withFd(sys.openat(sys.AT_FDCWD, '/dev/null', 0), (fd) => {
    t.throws(() => sys.peerCredentials(fd), { code: 'ENOTSOCK' });
  });
});

test('isListening tells a live socket from one left behind and from nothing', async (t) => {
  const path = join(root, 'live');
  t.false(sys.isListening(path));
  const server = net.createServer().listen(path);
  await once(server, 'listening');
  t.true(sys.isListening(path));
  const kept = join(root, 'kept');
  linkSync(path, kept);
  server.close();
  await once(server, 'close');
  t.false(sys.isListening(kept));
});
