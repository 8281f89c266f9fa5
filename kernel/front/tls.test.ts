/** TLS on the TCP address: who gets in, and certificates that change while the daemon runs. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectTcp, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import type { TcpPlace } from './config.ts';
import { call, greeting, RawPeer } from './raw-peer.ts';
import { openRig, rigLimits } from './rig.ts';
import { type TcpServer, tcpServer } from './tls.ts';

/** An authority, a server's and clients' certificates, made by openssl. */
function certificates(dir: string): {
  ca: string;
  cert: string;
  key: string;
  client(name: string): { cert: Buffer; key: Buffer };
} {
  const at = (name: string) => join(dir, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    '/CN=authority',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
  );
  const issue = (name: string, extensions: string) => {
    writeFileSync(at(`${name}.ext`), extensions);
    openssl(
      'req',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-subj',
      `/CN=${name}`,
      '-keyout',
      at(`${name}.key`),
      '-out',
      at(`${name}.csr`),
    );
    openssl(
      'x509',
      '-req',
      '-days',
      '2',
      '-in',
      at(`${name}.csr`),
      '-CA',
      at('ca.pem'),
      '-CAkey',
      at('ca.key'),
      '-CAcreateserial',
      '-extfile',
      at(`${name}.ext`),
      '-out',
      at(`${name}.pem`),
    );
  };
  issue('server', 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n');
  return {
    ca: at('ca.pem'),
    cert: at('server.pem'),
    key: at('server.key'),
    client: (name) => {
      issue(name, name.endsWith('-server') ? 'extendedKeyUsage=serverAuth\n' : 'extendedKeyUsage=clientAuth\n');
      return { cert: readFileSync(at(`${name}.pem`)), key: readFileSync(at(`${name}.key`)) };
    },
  };
}

interface Served {
  readonly tcp: TcpServer;
  readonly port: number;
  readonly warnings: string[];
  /** What becomes of a call of a client with these certificates. */
  over(options: ConnectionOptions): Promise<string>;
}

async function serve(t: ExecutionContext, place: Partial<TcpPlace>): Promise<Served> {
  const rig = await openRig();
  t.teardown(() => rig.close());
  const warnings: string[] = [];
  const note = (message: string) => void warnings.push(message);
  const tcp = tcpServer(
    { address: '127.0.0.1:0', cert: '', key: '', ca: '', commonName: '', insecure: false, ...place },
    rigLimits,
    { debug: () => {}, info: note, warn: note, error: note },
    (socket) => rig.server.accept(socket, { kind: 'tcp', describe: () => ({}) }),
  );
  await new Promise<void>((resolve) => tcp.server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    tcp.stop();
    tcp.server.close();
  });
  const { port } = tcp.server.address() as { port: number };
  const over = (options: ConnectionOptions): Promise<string> =>
    new Promise((resolve) => {
      const socket = connectTls({ host: '127.0.0.1', port, ALPNProtocols: ['h2'], ...options });
      socket.on('error', () => resolve('refused'));
      socket.on('close', () => resolve('refused'));
      socket.on('secureConnect', () => void unaryOver(socket).then(resolve));
    });
  return { tcp, port, warnings, over };
}

/** A peer that is refused hears so by a closed connection, which may come after its first bytes. */
async function unaryOver(socket: Socket): Promise<string> {
  const peer = new RawPeer(socket);
  peer.send(greeting, call(1, 'Unary', Buffer.from('hello')));
  const ends = await peer.ends();
  socket.destroy();
  return ends === 'status 0' ? 'served' : 'refused';
}

function scratch(t: ExecutionContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'front-tls-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  return dir;
}

test.serial('certificates on both sides, TLS 1.3, HTTP/2, and one common name', async (t) => {
  const made = certificates(scratch(t));
  const { over, port } = await serve(t, { cert: made.cert, key: made.key, ca: made.ca, commonName: 'alice' });
  const ca = readFileSync(made.ca);
  const alice = { ca, ...made.client('alice') };
  t.is(await over(alice), 'served');
  t.is(await over({ ca }), 'refused');
  t.is(await over({ ca, ...made.client('bob') }), 'refused');
  t.is(await over({ ca, ...made.client('alice-server') }), 'refused');
  t.is(await over({ ...alice, maxVersion: 'TLSv1.2' }), 'refused');
  t.is(await over({ ...alice, ALPNProtocols: ['http/1.1'] }), 'refused');
  t.is(await unaryOver(connectTcp(port, '127.0.0.1')), 'refused');
  t.is(await over(alice), 'served');
});

test.serial('a certificate for another purpose is no client certificate, also when any name will do', async (t) => {
  const made = certificates(scratch(t));
  const { over } = await serve(t, { cert: made.cert, key: made.key, ca: made.ca });
  const ca = readFileSync(made.ca);
  t.is(await over({ ca, ...made.client('bob') }), 'served');
  t.is(await over({ ca, ...made.client('bob-server') }), 'refused');
});

test.serial('new certificates are taken up; half-written ones are not', async (t) => {
  const dir = scratch(t);
  const first = certificates(dir);
  const { over, tcp, warnings } = await serve(t, { cert: first.cert, key: first.key, ca: first.ca });
  const old = { ca: readFileSync(first.ca), ...first.client('alice') };
  t.is(await over(old), 'served');
  mkdirSync(join(dir, 'new'));
  const second = certificates(join(dir, 'new'));
  const renewed = { ca: readFileSync(second.ca), ...second.client('alice') };
  t.is(await over(renewed), 'refused');
  for (const name of ['ca.pem', 'server.pem', 'server.key']) copyFileSync(join(dir, 'new', name), join(dir, name));
  tcp.refresh();
  t.is(await over(renewed), 'served');
  t.is(await over(old), 'refused');
  writeFileSync(first.cert, 'half a certifi');
  tcp.refresh();
  t.is(await over(renewed), 'served');
  t.regex(warnings.at(-1)!, /those before stay/);
});

test.serial('one-sided TLS is for those who insist', async (t) => {
  const made = certificates(scratch(t));
  const place = { cert: made.cert, key: made.key };
  await t.throwsAsync(serve(t, place), { message: /without grpc\.tcp_tls_ca/ });
  const { over, warnings } = await serve(t, { ...place, insecure: true });
  t.is(await over({ ca: readFileSync(made.ca) }), 'served');
  t.regex(warnings[0]!, /whoever can connect is root/);
  await t.throwsAsync(serve(t, { cert: made.cert, insecure: true }), { message: /tcp_tls_key/ });
});
