/** Which hosts are asked, how, and with whose credentials: files on disk, and names that only look alike. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { mkfifo } from 'troupe/sys';
import { useHostile } from '../../../test/helpers/hostile-registry.ts';
import { layoutOf } from '../../../test/helpers/layout.ts';
import { useScratch } from '../../../test/helpers/scratch.ts';
import { digestOf } from '../digest/digest.ts';
import { parseReference } from '../reference/reference.ts';
import { reachOf } from './address.ts';
import { fetchBlob } from './blob.ts';
import { parseChallenges } from './challenge.ts';
import { dockerConfig } from './credentials.ts';
import { hostsOf } from './hosts.ts';
import { Transport } from './http.ts';
import { Registry } from './registry.ts';
import { isTransient, pauseBefore } from './retry.ts';
import { sameDomain } from './token.ts';
import { Transports } from './transports.ts';

const { signal } = new AbortController();

function files(t: ExecutionContext, contents: Readonly<Record<string, string>>): string {
  const dir = useScratch(t, 'hosts');
  for (const [name, text] of Object.entries(contents)) {
    mkdirSync(join(dir, name, '..'), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  return dir;
}

test('without a file: https, docker.io by its other name, loopback by whatever it speaks', (t) => {
  const of = (name: string, defaultScheme = '') => {
    const [{ scheme, host, path, plainFallback, connecting }] = hostsOf(name, { directories: [], defaultScheme }) as [
      ReturnType<typeof hostsOf>[0],
    ];
    return [`${scheme}://${host}${path}`, plainFallback, connecting.skipVerify];
  };
  t.deepEqual(of('example.com'), ['https://example.com/v2', false, false]);
  t.deepEqual(of('docker.io'), ['https://registry-1.docker.io/v2', false, false]);
  t.deepEqual(of('localhost:5000'), ['https://localhost:5000/v2', true, true]);
  t.deepEqual(of('localhost:80'), ['http://localhost:80/v2', false, true]);
  t.deepEqual(of('127.0.0.1:5000', 'http'), ['http://127.0.0.1:5000/v2', false, true]);
  t.deepEqual(of('example.com', 'http'), ['http://example.com/v2', false, false]);
});

test('hosts.toml: all keys, in the order of the file, read anew each time', (t) => {
  const dir = files(t, {
    'example.com_5000_/ca.pem': 'CA',
    'example.com_5000_/both.pem': 'BOTH',
    'example.com_5000_/hosts.toml': `
server = "https://upstream.example.com"
[host."https://b.example.com/prefix"]
capabilities = ["pull", "Resolve"]
ca = "ca.pem"
client = [["both.pem", "both.pem"]]
skip_verify = true
dial_timeout = "1m30s"
[host."https://b.example.com/prefix".header]
x-one = "1"
x-two = ["2", "3"]
[host."http://a.example.com/v2/mirror"]
override_path = true
`,
    '_default/hosts.toml': '[host."https://mirror.test"]\n',
    'docker.io/hosts.toml': '[host."https://hub.mirror.test"]\ncapabilities = ["pull"]\n',
  });
  const of = (name: string) => hostsOf(name, { directories: [dir] });
  const [first, second, last] = of('example.com:5000');
  t.deepEqual(
    [first!.host, first!.path, [...first!.capabilities], first!.headers, first!.connecting],
    [
      'b.example.com',
      '/prefix/v2',
      ['pull', 'resolve'],
      { 'x-one': '1', 'x-two': ['2', '3'] },
      { ca: ['CA'], client: [{ cert: 'BOTH', key: 'BOTH' }], skipVerify: true, dialTimeoutMs: 90_000 },
    ],
  );
  t.deepEqual([second!.scheme, second!.host, second!.path], ['http', 'a.example.com', '/v2/mirror']);
  t.deepEqual([last!.host, last!.capabilities.has('push')], ['upstream.example.com', true]);
  t.deepEqual(
    of('docker.io').map(({ host }) => host),
    ['hub.mirror.test', 'registry-1.docker.io'],
  );
  t.deepEqual(
    of('elsewhere.test').map(({ host }) => host),
    ['mirror.test', 'elsewhere.test'],
  );
  writeFileSync(join(dir, '_default/hosts.toml'), '');
  t.deepEqual(
    of('elsewhere.test').map(({ host }) => host),
    ['elsewhere.test'],
  );
});

test('hosts.toml: what is wrong in it is said, and nobody is asked', (t) => {
  for (const [text, message] of [
    ['server = 3', /server is not a text/],
    ['[host."http://"]', /is not a URL/],
    ['[host."https://user:pass@a"]', /has more than scheme, host and path/],
    ['[host."https://a"]\ncapabilities = ["fly"]', /no capability "fly"/],
    ['[host."https://a"]\nca = "missing.pem"', /missing\.pem/],
    ['[host."https://a"]\nskip_verify = "yes"', /skip_verify/],
    ['[host."https://a"]\ndial_timeout = "soon"', /is not a duration/],
    ['[host."https://a".header]\n"x\\ny" = "1"', /is malformed/],
    ['[host."https://a"]\nnonsense = 1', /no key nonsense/],
    ['[host."https://a".header]\nx = "1\\r\\nauthorization: y"', /header "x" is malformed/],
    ['[host."https://a".header]\nx = ["1", "2\\n3"]', /header "x" is malformed/],
    ['server = "file:///etc/passwd"', /"file:\/\/\/etc\/passwd" is of scheme file, not http:\/\/ or https:\/\//],
    ['server = "file:/etc/passwd"', /is of scheme file/],
    ['server = "unix:///run/x.sock"', /is of scheme unix/],
    ['[host."ftp://a"]', /is of scheme ftp/],
    ['[host."https:a"]', /is of scheme https, not http:\/\/ or https:\/\//],
    ['[host."https://a"]\nca = "fifo"', /fifo is not a file with certificates/],
    ['[host."https://a"]\nclient = [["fifo", "fifo"]]', /fifo is not a file with certificates/],
    ['[host."https://a"]\nca = "/dev/zero"', /\/dev\/zero is not a file with certificates/],
    ['host = [', /hosts\.toml/],
  ] as const) {
    const dir = files(t, { 'a.test/hosts.toml': text });
    mkfifo(join(dir, 'a.test/fifo'), 0o600);
    const failure = t.throws(() => hostsOf('a.test', { directories: [dir] }), { message, instanceOf: Failure }, text);
    t.is(failure?.code, 'InvalidArgument', text);
  }
  const dir = files(t, { 'a.test/hosts.toml': 'server = "b.test:5000"\n[host."[::1]:80"]' });
  t.deepEqual(
    hostsOf('a.test', { directories: [dir] }).map(({ scheme, host }) => `${scheme}://${host}`),
    ['https://[::1]:80', 'https://b.test:5000'],
  );
});

test("docker's directories of certificates", (t) => {
  const dir = files(t, {
    'a.test:5000/ca.crt': 'CA',
    'a.test:5000/client.cert': 'CERT',
    'a.test:5000/client.key': 'KEY',
    'b.test/x.cert': 'CERT',
  });
  const [host] = hostsOf('a.test:5000', { directories: ['/nonexistent', dir] });
  t.deepEqual([host!.connecting.ca, host!.connecting.client], [['CA'], [{ cert: 'CERT', key: 'KEY' }]]);
  t.throws(() => hostsOf('b.test', { directories: [dir] }), { message: /has no x\.key beside it/ });
});

test('CVE-2026-59891, GO-2026-6225: credentials are for a host, not for what looks like it', async (t) => {
  const auth = Buffer.from('user:pa:ss').toString('base64');
  const dir = files(t, {
    'config.json': JSON.stringify({
      auths: {
        'https://index.docker.io/v1/': { auth },
        'example.com:5000': { auth },
        'token.test': { identitytoken: 'refresh' },
        'https://Case.Test/v2/': { username: 'u', password: 'p' },
      },
      credHelpers: { 'helped.test': 'good', 'broken.test': 'broken', 'bad.test': '../bad', 'none.test': 'none' },
    }),
  });
  const source = dockerConfig(join(dir, 'config.json'), async (name, server) => {
    if (name === 'good') return JSON.stringify({ ServerURL: server, Username: '<token>', Secret: 'helped' });
    throw new Error(name === 'none' ? 'credentials not found in native keychain' : 'broken pipe');
  });
  const ask = (host: string) => source({ host, reference: '', challenges: [], signal });
  const basic = { kind: 'basic', username: 'user', password: 'pa:ss' };
  t.deepEqual(await ask('docker.io'), basic as never);
  t.deepEqual(await ask('registry-1.docker.io'), basic as never);
  t.deepEqual(await ask('example.com:5000'), basic as never);
  t.deepEqual(await ask('token.test'), { kind: 'refresh', token: 'refresh', username: '' });
  t.deepEqual(await ask('case.test'), { kind: 'basic', username: 'u', password: 'p' });
  t.deepEqual(await ask('helped.test'), { kind: 'refresh', token: 'helped', username: '' });
  t.is(await ask('none.test'), undefined);
  await t.throwsAsync(ask('broken.test'), { message: /credential helper broken: broken pipe/ });
  await t.throwsAsync(ask('bad.test'), { message: /its name is malformed/ });
  for (const host of [
    'evil-docker.io',
    'docker.io.evil.com',
    'docker.io.',
    'index.docker.io.evil.com',
    'example.com',
    'example.com:5001',
    'sub.example.com:5000',
    'xexample.com:5000',
    'constructor',
  ])
    t.is(await ask(host), undefined, host);
  t.is(
    await dockerConfig(
      join(dir, 'none.json'),
      async () => '',
    )({ host: 'docker.io', reference: '', challenges: [], signal }),
    undefined,
  );
  for (const reference of ['docker.io:443@evil.com/a:1', 'dоcker.io/a:1', 'docker.io:99999999/a:1'])
    t.throws(() => parseReference(reference), { message: /malformed|needs a host/ }, reference);
});

test('domains: whose token server may be told a password', (t) => {
  for (const [a, b, same] of [
    ['registry-1.docker.io', 'auth.docker.io', true],
    ['registry.gitlab.com', 'gitlab.com', true],
    ['docker.io', 'docker.io.evil.com', false],
    ['evil-docker.io', 'docker.io', false],
    ['a.co.uk', 'b.co.uk', false],
    ['x.a.co.uk', 'y.a.co.uk', true],
    ['127.0.0.1', '127.0.0.2', false],
    ['10.0.0.1', '10.0.0.1', true],
    ['localhost', '127.0.0.1', false],
    ['Example.COM.', 'auth.example.com', true],
  ] as const)
    t.is(sameDomain(a, b), same, `${a} ${b}`);
});

test('addresses: what is inside, and what is out there', (t) => {
  for (const [address, reach] of [
    ['8.8.8.8', 'public'],
    ['10.1.2.3', 'inside'],
    ['127.0.0.1', 'inside'],
    ['100.64.1.1', 'inside'],
    ['169.254.169.254', 'link-local'],
    ['::1', 'inside'],
    ['fd12::1', 'inside'],
    ['fe80::1%eth0', 'link-local'],
    ['::ffff:127.0.0.1', 'inside'],
    ['::ffff:169.254.169.254', 'link-local'],
    ['2606:4700::1111', 'public'],
  ] as const)
    t.is(reachOf(address), reach, address);
});

test('128: an address is looked at when it is connected to', async (t) => {
  const transport = new Transport({ ca: [], client: [], skipVerify: false, dialTimeoutMs: 2000 });
  t.teardown(() => transport.close());
  const ask = (url: string) =>
    transport.send({ method: 'GET', url: new URL(url), headers: {}, allowed: 'public', signal });
  await t.throwsAsync(ask('http://localhost:1/'), { message: /a private address, to which a registry outside/ });
  await t.throwsAsync(ask('http://127.0.0.1:1/'), { message: /a private address/ });
});

test('challenges, also several in one header', (t) => {
  t.deepEqual(
    parseChallenges(['Basic realm="a", Bearer realm="https://x/y?z=1,2",service=s,scope="repository:a:pull \\"q\\""']),
    [
      { scheme: 'basic', parameters: { realm: 'a' } },
      { scheme: 'bearer', parameters: { realm: 'https://x/y?z=1,2', service: 's', scope: 'repository:a:pull "q"' } },
    ],
  );
  t.deepEqual(parseChallenges(['Negotiate', 'Bearer']), [
    { scheme: 'negotiate', parameters: {} },
    { scheme: 'bearer', parameters: {} },
  ]);
  t.deepEqual(parseChallenges([`Bearer realm="${'x'.repeat(20_000)}"`, '', '"', '=', 'Bearer realm="unended']), [
    { scheme: 'bearer', parameters: {} },
  ]);
});

test('124: pauses grow, are as long as is asked, and no longer than a minute', (t) => {
  const backoff = { firstMs: 100, attempts: 5 };
  const between = (value: number, low: number, high: number) => t.true(value >= low && value <= high, `${value}`);
  between(pauseBefore(1, backoff), 50, 100);
  between(pauseBefore(4, backoff), 400, 800);
  between(pauseBefore(40, backoff), 30_000, 60_000);
  t.is(pauseBefore(1, backoff, '3'), 3000);
  t.is(pauseBefore(1, backoff, '1000000000'), 60_000);
  between(pauseBefore(1, backoff, '0'), 50, 100);
  between(pauseBefore(1, backoff, 'garbage'), 50, 100);
  between(pauseBefore(1, backoff, 'Wed, 21 Oct 2015 07:28:00 GMT'), 50, 100);
  t.is(pauseBefore(1, backoff, new Date(10_000).toUTCString(), 5000), 5000);
  t.deepEqual([200, 401, 404, 408, 429, 500, 503].map(isTransient), [false, false, false, true, true, true, true]);
});

test('mirrors are asked in order, told which registry is meant, and passed over when they fail', async (t) => {
  const layout = layoutOf([{ bytes: Buffer.from('layer') }]);
  const [broken, empty, good] = await Promise.all([
    useHostile(t, layout),
    useHostile(t, layoutOf([])),
    useHostile(t, layout),
  ]);
  broken.misbehave({ status: Number.POSITIVE_INFINITY });
  const dir = files(t, {
    'upstream.test/hosts.toml': `server = "http://${good.host}"\n[host."http://127.0.0.1:1"]\n[host."http://${broken.host}"]\n[host."http://${empty.host}"]\ncapabilities = ["push"]\n`,
  });
  const transports = new Transports();
  t.teardown(() => transports.close());
  const registry = new Registry({
    reference: parseReference('upstream.test/team/app:1'),
    hosts: hostsOf('upstream.test', { directories: [dir] }),
    transports,
    credentials: async () => undefined,
    backoff: { firstMs: 1, attempts: 3 },
  });
  t.is(String((await registry.resolve(signal)).digest), layout.target.digest);
  t.true(broken.seen.length > 0 && broken.seen.every(({ url }) => url.endsWith('?ns=upstream.test')));
  t.is(empty.seen.length, 0);
});

test('127: certificates: of nobody, expired, for another name, and one that is trusted', async (t) => {
  const layout = layoutOf([{ bytes: Buffer.from('layer') }]);
  const dir = files(t, {});
  const make = (name: string, ...more: string[]): { cert: string; key: string } => {
    const [cert, key] = [join(dir, `${name}.crt`), join(dir, `${name}.key`)];
    execFileSync(
      'openssl',
      [
        'req',
        '-x509',
        '-newkey',
        'ec',
        '-pkeyopt',
        'ec_paramgen_curve:prime256v1',
        '-nodes',
        '-keyout',
        key,
        '-out',
        cert,
        '-subj',
        '/CN=test',
        ...more,
      ],
      { stdio: 'ignore' },
    );
    return { cert: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') };
  };
  const own = make('own', '-addext', 'subjectAltName=IP:127.0.0.1');
  const other = make('other', '-addext', 'subjectAltName=DNS:other.test');
  const resolve = async (tls: { cert: string; key: string }, ca: string[]): Promise<string> => {
    const hostile = await useHostile(t, layout, { tls });
    const [host] = hostsOf(hostile.host, { directories: [], defaultScheme: 'https' });
    const transports = new Transports();
    t.teardown(() => transports.close());
    const connecting = { ...host!.connecting, skipVerify: false, ca };
    const reference = parseReference(`${hostile.host}/a:1`);
    const registry = new Registry({
      reference,
      hosts: [{ ...host!, connecting }],
      transports,
      credentials: async () => undefined,
      backoff: { firstMs: 1, attempts: 3 },
    });
    return (await registry.resolve(signal)).digest;
  };
  t.is(await resolve(own, [own.cert]), layout.target.digest);
  await t.throwsAsync(resolve(own, []), { message: /self-signed certificate.*: unavailable/ });
  await t.throwsAsync(resolve(other, [other.cert]), {
    message: /(?:does not match certificate|ALTNAME).*: unavailable/,
  });
});

test('a mirror whose connections break is passed over for what is left', async (t) => {
  const bytes = Buffer.alloc(200_000, 'layer');
  const layout = layoutOf([{ bytes }]);
  const [broken, good] = await Promise.all([useHostile(t, layout), useHostile(t, layout)]);
  broken.misbehave({ truncate: Number.POSITIVE_INFINITY });
  const dir = files(t, {
    'upstream.test/hosts.toml': `server = "http://${good.host}"\n[host."http://${broken.host}"]\n`,
  });
  const transports = new Transports();
  t.teardown(() => transports.close());
  const backoff = { firstMs: 1, attempts: 3 };
  const registry = new Registry({
    reference: parseReference('upstream.test/team/app:1'),
    hosts: hostsOf('upstream.test', { directories: [dir] }),
    transports,
    credentials: async () => undefined,
    backoff,
  });
  const digest = digestOf(bytes);
  const options = { backoff, rate: { least: 0, windowMs: 0 }, piece: 0, pieces: 1 };
  const chunks: Uint8Array[] = [];
  for await (const some of fetchBlob(registry, { digest, size: bytes.length, mediaType: 'x/y' }, 0, options, signal))
    chunks.push(...some);
  t.true(Buffer.concat(chunks).equals(bytes));
  t.is(good.ranges().length, 1);
});
