/** A registry that does everything wrong (see test/helpers/hostile-registry.ts): each way ends in the image, or in an error that says why. */
import { createHash, randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { Failure, type FailureCode } from 'troupe/plugin';
import { type HostileOptions, type HostileRegistry, useHostile } from '../../../test/helpers/hostile-registry.ts';
import { layoutOf } from '../../../test/helpers/layout.ts';
import type { Descriptor } from '../image/document.ts';
import { parseReference } from '../reference/reference.ts';
import { type BlobOptions, fetchBlob } from './blob.ts';
import type { CredentialSource } from './credentials.ts';
import { hostsOf } from './hosts.ts';
import { Registry } from './registry.ts';
import { Transports } from './transports.ts';

const layer = randomBytes(300_000);
const layout = layoutOf([{ bytes: layer, mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' }]);
const target = layout.target.digest as Descriptor['digest'];
const blob: Descriptor = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: `sha256:${createHash('sha256').update(layer).digest('hex')}` as Descriptor['digest'],
  size: layer.length,
  annotations: {},
  platform: undefined,
  urls: [],
};
const options: BlobOptions = {
  backoff: { firstMs: 1, attempts: 5 },
  rate: { least: 4096, windowMs: 20_000 },
  piece: 0,
  pieces: 1,
};

/** For those who wait for what does not come. */
const impatient: Partial<BlobOptions> = { rate: { least: 4096, windowMs: 300 } };

interface Rig {
  readonly hostile: HostileRegistry;
  readonly registry: Registry;
  fetch(from?: number, changes?: Partial<BlobOptions>): Promise<Buffer>;
}

async function useRig(
  t: ExecutionContext,
  given: HostileOptions & { credentials?: CredentialSource; trusted?: string[] } = {},
): Promise<Rig> {
  const hostile = await useHostile(t, layout, given);
  const transports = new Transports();
  t.teardown(() => transports.close());
  const registry = new Registry({
    reference: parseReference(`${hostile.host}/team/app:1`),
    hosts: hostsOf(hostile.host, { directories: [], defaultScheme: given.tls === undefined ? 'http' : 'https' }),
    transports,
    credentials: given.credentials ?? (async () => undefined),
    trusted: given.trusted ?? [],
    backoff: options.backoff,
  });
  const fetch = async (from = 0, changes: Partial<BlobOptions> = {}): Promise<Buffer> => {
    const chunks: Uint8Array[] = [];
    for await (const some of fetchBlob(registry, blob, from, { ...options, ...changes }, new AbortController().signal))
      chunks.push(...some);
    return Buffer.concat(chunks);
  };
  return { hostile, registry, fetch };
}

const resolve = ({ registry }: Rig) => registry.resolve(new AbortController().signal);

async function refused(t: ExecutionContext, work: Promise<unknown>, code: FailureCode, message: RegExp): Promise<void> {
  const error = await t.throwsAsync(work);
  t.true(error instanceof Failure, String(error?.stack));
  t.is((error as Failure).code, code, (error as Failure).message);
  t.regex((error as Failure).message, message);
}

for (const behaviour of [
  'silent',
  'stall',
  'truncate',
  'reset',
  'hints',
  'two lengths',
  'length and chunks',
  'chunk overflow',
  'header of a megabyte',
] as const) {
  test(`119, 120, 125: ${behaviour}, then well: what came is gone on from`, async (t) => {
    const rig = await useRig(t, { seed: 11 });
    const changes = behaviour === 'silent' || behaviour === 'stall' ? impatient : {};
    rig.hostile.misbehave({ [behaviour]: 1 });
    t.true((await rig.fetch(0, changes)).equals(layer));
    rig.hostile.misbehave({ [behaviour]: Number.POSITIVE_INFINITY });
    await refused(t, rig.fetch(0, changes), 'Unavailable', /blob|GET/);
    rig.hostile.misbehave({});
    t.true((await rig.fetch()).equals(layer));
  });
}

test('119: a byte now and then is as good as none', async (t) => {
  const rig = await useRig(t);
  rig.hostile.misbehave({ trickle: Number.POSITIVE_INFINITY });
  await refused(
    t,
    rig.fetch(0, { ...impatient, backoff: { firstMs: 1, attempts: 2 } }),
    'Unavailable',
    /bytes in 300 ms, less than 4096 a second/,
  );
});

test('120: a connection that breaks ever again brings all of it in the end, by ranges', async (t) => {
  for (let seed = 1; seed <= 5; seed++) {
    const rig = await useRig(t, { seed });
    rig.hostile.misbehave({ truncate: 4 });
    t.true((await rig.fetch()).equals(layer), `seed ${seed}`);
    t.is(rig.hostile.ranges()[0], undefined);
    t.true(
      rig.hostile
        .ranges()
        .slice(1)
        .every((range) => /^bytes=\d+-299999$/.test(range ?? '')),
    );
  }
});

test('120: more or fewer bytes than the descriptor says', async (t) => {
  const rig = await useRig(t);
  for (const behaviour of ['too long', 'endless'] as const) {
    rig.hostile.misbehave({ [behaviour]: Number.POSITIVE_INFINITY });
    await refused(t, rig.fetch(), 'FailedPrecondition', /has more than the 300000 bytes of its descriptor/);
  }
  rig.hostile.misbehave({ 'announces more': 1 });
  await refused(t, rig.fetch(), 'FailedPrecondition', /has 300010 bytes, its descriptor says 300000/);
});

test('121: ranges that are ignored, answered with others, or refused', async (t) => {
  const rig = await useRig(t);
  const rest = layer.subarray(1000);
  rig.hostile.misbehave({ 'range ignored': 1 });
  t.true((await rig.fetch(1000)).equals(rest));
  rig.hostile.misbehave({ 'other range': 1 });
  await refused(t, rig.fetch(1000), 'FailedPrecondition', /bytes 1000-299999 were asked for/);
  rig.hostile.misbehave({ 'range refused': 1 });
  await refused(t, rig.fetch(1000), 'FailedPrecondition', /has no bytes from 1000 on/);
});

test('one large blob in pieces, which break and come again, is the blob', async (t) => {
  const rig = await useRig(t, { seed: 3 });
  const slow: Partial<BlobOptions> = { piece: 40_000, pieces: 4 };
  rig.hostile.misbehave({ truncate: 3 });
  const { inPieces } = await import('./blob.ts');
  const chunks: Uint8Array[] = [];
  for await (const some of inPieces(rig.registry, blob, 0, { ...options, ...slow }, new AbortController().signal))
    chunks.push(...some);
  t.true(Buffer.concat(chunks).equals(layer));
  t.true(rig.hostile.ranges().length >= 8 + 3);
});

test('122: redirects: loops, places that must not be gone to', async (t) => {
  const rig = await useRig(t);
  const always = { redirect: Number.POSITIVE_INFINITY };
  for (const [location, code, message] of [
    ['/loop/$N', 'Unavailable', /more than 10 redirects/],
    ['file:///etc/passwd', 'Unavailable', /not http/],
    ['http://user:secret@127.0.0.1:1/x', 'Unavailable', /has a user in it/],
    ['http://169.254.169.254/latest/meta-data', 'PermissionDenied', /link-local address/],
    ['http://[fe80::1]/x', 'PermissionDenied', /link-local address/],
    ['http://[::ffff:169.254.169.254]/x', 'PermissionDenied', /link-local address/],
    ['https://', 'Unavailable', /not a URL/],
  ] as const) {
    rig.hostile.location = location;
    rig.hostile.misbehave(always);
    await refused(t, rig.fetch(0, { backoff: { firstMs: 1, attempts: 1 } }), code, message);
  }
});

test('CVE-2024-24758, CVE-2024-30260: what is secret stays with the host over a redirect', async (t) => {
  const rig = await useRig(t, { credentials: async () => ({ kind: 'basic', username: 'user', password: 'secret' }) });
  const other = await useHostile(t, layout);
  rig.hostile.location = `http://${other.host}/v2/team/app/blobs/${blob.digest}`;
  rig.hostile.misbehave({ basic: Number.POSITIVE_INFINITY, redirect: 1 });
  t.true((await rig.fetch()).equals(layer));
  t.true(rig.hostile.seen.some(({ headers }) => headers.authorization?.startsWith('Basic ')));
  t.is(other.seen.length, 1);
  t.is(other.seen[0]!.headers.authorization, undefined);
});

test('123: 401 without end, and tokens that are none', async (t) => {
  const rig = await useRig(t);
  rig.hostile.misbehave({ 'always 401': Number.POSITIVE_INFINITY });
  await refused(t, resolve(rig), 'Unauthenticated', /authorization failed/);
  t.true(rig.hostile.seen.filter(({ url }) => url.includes('/manifests/')).length <= 5);
  for (const [body, message] of [
    [JSON.stringify({ token: 'x'.repeat(1 << 20) }), /more than 1048576 bytes|fits in no header/],
    [JSON.stringify({ token: 'y'.repeat(100_000) }), /fits in no header/],
    ['{"token":"a\\nb"}', /fits in no header/],
    ['['.repeat(100_000), /is not JSON|has no token/],
    ['<html>', /is not JSON/],
    ['null', /has no token/],
    ['{}', /has no token/],
  ] as const) {
    const fresh = await useRig(t);
    fresh.hostile.token = { body };
    fresh.hostile.misbehave({ bearer: Number.POSITIVE_INFINITY });
    const error = await t.throwsAsync(resolve(fresh));
    t.regex(error!.message, message);
  }
  for (const expires of ['-1', '1e18', '"soon"', 'null']) {
    const fresh = await useRig(t);
    fresh.hostile.token = { body: `{"token":"good","expires_in":${expires}}` };
    fresh.hostile.misbehave({ bearer: Number.POSITIVE_INFINITY });
    t.is((await resolve(fresh)).digest, target);
  }
});

test('CVE-2026-33540, CVE-2026-48978, CVE-2026-65388: credentials do not go where a realm sends them', async (t) => {
  const rig = await useRig(t, { credentials: async () => ({ kind: 'basic', username: 'user', password: 'secret' }) });
  rig.hostile.misbehave({ bearer: Number.POSITIVE_INFINITY });
  t.is((await resolve(rig)).digest, target);
  const asked = rig.hostile.seen.find(({ url }) => url.startsWith('/token'));
  t.is(asked?.headers.authorization, `Basic ${Buffer.from('user:secret').toString('base64')}`);

  const other = await useHostile(t, layout);
  // Another name of loopback, and so another host.
  for (const [realm, message] of [
    [`http://localhost:${other.host.split(':')[1]}/token`, undefined],
    ['http://169.254.169.254/token', /link-local/],
    ['ftp://127.0.0.1/token', /not http/],
    [`http://user:pass@${other.host}/token`, /has a user in it/],
    ['nonsense', /not a URL/],
  ] as const) {
    const fresh = await useRig(t, {
      credentials: async () => ({ kind: 'basic', username: 'user', password: 'secret' }),
    });
    fresh.hostile.realm = realm;
    fresh.hostile.misbehave({ bearer: Number.POSITIVE_INFINITY });
    if (message === undefined) t.is((await resolve(fresh)).digest, target);
    else await refused(t, resolve(fresh), 'PermissionDenied', message);
  }
  t.true(other.seen.length > 0);
  t.true(other.seen.every(({ headers, body }) => headers.authorization === undefined && !body.includes('secret')));
});

test('124: too many requests and broken servers: asked again, not for ever', async (t) => {
  const rig = await useRig(t);
  for (const [status, code] of [
    [429, 'Unavailable'],
    [503, 'Unavailable'],
    [500, 'Unavailable'],
    [403, 'PermissionDenied'],
    [404, 'NotFound'],
  ] as const) {
    rig.hostile.status = status;
    rig.hostile.retryAfter = status === 429 ? '0' : undefined;
    rig.hostile.misbehave({ status: 2 });
    if (status >= 429) t.is((await resolve(rig)).digest, target, String(status));
    rig.hostile.misbehave({ status: Number.POSITIVE_INFINITY });
    await refused(t, resolve(rig), code, status === 404 ? /not found/ : new RegExp(String(status)));
    t.true(rig.hostile.seen.length <= 5);
    rig.hostile.misbehave({ 'blob status': Number.POSITIVE_INFINITY });
    await refused(t, rig.fetch(), code, /./);
  }
});

test('125: encodings that nobody asked for are not undone, CVE-2026-22036', async (t) => {
  const rig = await useRig(t);
  for (const behaviour of ['gzip', 'encodings', 'many headers'] as const) {
    rig.hostile.misbehave({ [behaviour]: 1 });
    t.true((await rig.fetch()).equals(layer), behaviour);
  }
});

test('126: a registry that changes its mind: what the bytes are decides', async (t) => {
  const rig = await useRig(t);
  const { signal } = new AbortController();
  rig.hostile.misbehave({ 'no digest': Number.POSITIVE_INFINITY });
  t.is((await resolve(rig)).digest, target);
  rig.hostile.misbehave({ 'json type': Number.POSITIVE_INFINITY });
  t.is((await resolve(rig)).mediaType, layout.target.mediaType);
  rig.hostile.misbehave({ 'bytes differ': 1 });
  const { mediaType, digest, size } = await resolve(rig);
  await refused(
    t,
    rig.registry.manifest({ mediaType, digest, size }, signal),
    'FailedPrecondition',
    /of digest sha256:.* came/,
  );
  rig.hostile.misbehave({ 'other digest': Number.POSITIVE_INFINITY });
  const lied = await resolve(rig);
  await t.throwsAsync(rig.registry.manifest(lied, signal));
});

test('130: a page to log in is no manifest, and no layer', async (t) => {
  const rig = await useRig(t);
  rig.hostile.misbehave({ page: Number.POSITIVE_INFINITY });
  await refused(t, resolve(rig), 'InvalidArgument', /unexpected media type "text\/html"/);
  rig.hostile.misbehave({ 'blob page': Number.POSITIVE_INFINITY });
  await refused(t, rig.fetch(), 'InvalidArgument', /unexpected media type "text\/html"/);
});
