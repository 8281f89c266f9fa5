/** Documents from outside: one meaning, or none. */
import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { digestOf } from '../digest/digest.ts';
import { parseConfig, parseDocument, requireBytes } from './document.ts';
import { childLabels, DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST } from './media-type.ts';
import { hostPlatform, normalize, type Platform, rank } from './platform.ts';

const digest = digestOf('x');
const config = { mediaType: OCI_CONFIG, digest, size: 2 };
const layer = { mediaType: `${OCI_LAYER}+gzip`, digest, size: 3 };
const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer] };

function refuses(t: ExecutionContext, document: unknown, message: RegExp, mediaType = OCI_MANIFEST): void {
  const bytes = typeof document === 'string' ? Buffer.from(document) : Buffer.from(JSON.stringify(document));
  const error = t.throws(() => parseDocument(bytes, { digest, mediaType }), { instanceOf: Failure });
  t.is(error?.code, 'InvalidArgument');
  t.regex(error?.message ?? '', message);
}

test('a manifest and an index are read', (t) => {
  const read = parseDocument(Buffer.from(JSON.stringify(manifest)), { digest, mediaType: OCI_MANIFEST });
  t.is(read.kind === 'manifest' && read.layers[0]!.mediaType, layer.mediaType);
  const platform = { os: 'linux', architecture: 'arm', variant: 'v7' };
  const index = { schemaVersion: 2, manifests: [{ mediaType: OCI_MANIFEST, digest, size: 5, platform }] };
  const list = parseDocument(Buffer.from(JSON.stringify(index)), { digest, mediaType: OCI_INDEX });
  t.deepEqual(list.kind === 'index' && list.manifests[0]!.platform, platform);
});

test('CVE-2021-41190: 49, 50: a document that is a manifest and an index is neither', (t) => {
  refuses(t, { ...manifest, manifests: [] }, /is a manifest and has manifests/);
  refuses(t, { schemaVersion: 2, manifests: [], layers: [] }, /is an index and has layers/, OCI_INDEX);
  refuses(t, { schemaVersion: 2, manifests: [], config }, /is an index and has layers or a config/, OCI_INDEX);
  refuses(t, { ...manifest, fsLayers: [] }, /schema 1/);
  refuses(t, manifest, /says that it is .*oci.* announced as .*docker/, DOCKER_MANIFEST);
  refuses(t, { ...manifest, mediaType: OCI_INDEX }, /says that it is/);
});

test('51, 52: sizes and digests that are none', (t) => {
  refuses(t, { schemaVersion: 1, name: 'a', fsLayers: [] }, /schema 1 .* no longer supported/);
  for (const size of [-1, 2 ** 53 + 2, 1.5, '3', null, undefined])
    refuses(t, { ...manifest, config: { ...config, size } }, /its size is/);
  const hex = 'a'.repeat(64);
  for (const bad of [
    `sha256:${hex}/../../x`,
    `sha256:${hex.slice(1)}`,
    `sha256:${hex.toUpperCase()}`,
    `sha1:${hex.slice(24)}`,
    `md5:${hex.slice(32)}`,
    '',
    `sha256:${hex}\0`,
    '../x',
  ])
    refuses(t, { ...manifest, layers: [{ ...layer, digest: bad }] }, /its digest/);
});

test('54, 55: JSON that two readers read differently', (t) => {
  const text = JSON.stringify(manifest);
  refuses(t, text.replace('"config"', '"config":{},"config"'), /has the key "config" twice/);
  refuses(t, text.replace('"layers"', '"Layers"'), /which some read as "layers"/);
  refuses(t, text.replace('"mediaType"', '"MEDIATYPE"'), /which some read as "mediaType"/);
  refuses(t, text.replace('"digest"', '"\\u0064igest":1,"digest"'), /"digest" twice/);
  refuses(t, `\ufeff${text}`, /is not JSON/);
  refuses(t, `${text}{}`, /is not JSON/);
  refuses(t, `${text.slice(0, -1)},"x":NaN}`, /is not JSON/);
  refuses(t, `${text.slice(0, -1)} /* */}`, /is not JSON/);
  refuses(t, `${'['.repeat(100_000)}`, /nested deeper/);
  refuses(t, `{"a":${'{"a":'.repeat(100)}1${'}'.repeat(101)}`, /nested deeper/);
  refuses(t, `"${'x'.repeat(5 << 20)}"`, /the limit is 4194304/);
  refuses(t, '[]', /is not an object/);
  refuses(t, Buffer.from([0x7b, 0xff, 0x7d]).toString('latin1'), /not/);
  // A long text costs no stack.
  const long = { ...manifest, annotations: { long: 'x'.repeat(3 << 20), other: '\\"'.repeat(1000) } };
  t.notThrows(() => parseDocument(Buffer.from(JSON.stringify(long)), { digest, mediaType: OCI_MANIFEST }));
});

test('67, 68: descriptors that nothing follows are descriptors all the same', (t) => {
  const parse = (value: object) =>
    parseDocument(Buffer.from(JSON.stringify(value)), { digest, mediaType: OCI_MANIFEST });
  const inline = { mediaType: OCI_CONFIG, digest: digestOf('{}'), size: 2, data: 'e30=' };
  t.notThrows(() => parse({ ...manifest, config: inline, subject: { ...config, mediaType: OCI_MANIFEST } }));
  t.notThrows(() => parse({ ...manifest, subject: null }));
  for (const data of ['W10=', '', 'e30AAA==', 7, 'x'.repeat(100_000)])
    refuses(t, { ...manifest, config: { ...inline, data } }, /config: its data is not what its digest and size say/);
  refuses(t, { ...manifest, subject: { ...config, digest: 'sha256:short' } }, /subject: its digest/);
  refuses(t, { ...manifest, subject: 'x' }, /subject: is not a descriptor/);
  refuses(t, { ...manifest, subject: { ...config, size: -1 } }, /subject: its size is -1/);
});

test('74: a layer that is a manifest, an index or a config', (t) => {
  for (const mediaType of [OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, OCI_CONFIG])
    refuses(t, { ...manifest, layers: [layer, { ...layer, mediaType }] }, /one of its layers is of type "application/);
  refuses(t, { ...manifest, config: layer }, /its config is a layer/);
});

test('a key named __proto__ is a key', (t) => {
  const text = JSON.stringify(manifest).replace('{', '{"__proto__":{"layers":[]},');
  const read = parseDocument(Buffer.from(text), { digest, mediaType: OCI_MANIFEST });
  t.is(read.kind === 'manifest' && read.layers.length, 1);
});

test('56: layers without end', (t) => {
  refuses(t, { ...manifest, layers: Array(1001).fill(layer) }, /has 1001 layers, the limit is 1000/);
  const child = { mediaType: OCI_MANIFEST, digest, size: 5 };
  const many = { schemaVersion: 2, manifests: Array(10_001).fill(child) };
  refuses(t, many, /has 10001 manifests, the limit is 10000/, OCI_INDEX);
  // A million annotations are more bytes than a manifest may have; what fits into those is still too many.
  const annotations = Object.fromEntries(Array.from({ length: 1001 }, (_, at) => [`k${at}`, '']));
  refuses(t, { ...manifest, config: { ...config, annotations } }, /config: its annotations are not texts/);
});

test('57: configs whose diff ids are none', (t) => {
  const parse = (value: unknown) => parseConfig(Buffer.from(JSON.stringify(value)), digest);
  t.deepEqual(parse({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digest] } }).diffIds, [digest]);
  t.throws(() => parse({ rootfs: { diff_ids: [null] } }), { message: /not a digest/ });
  t.throws(() => parse({ rootfs: { diff_ids: 'x' } }), { message: /not a list/ });
  t.throws(() => parse({ RootFS: {} }), { message: /which some read as "rootfs"/ });
  t.throws(() => parse({ architecture: 'x'.repeat(1 << 20) }), { message: /architecture/ });
});

test('53: bytes that are not what their descriptor says', (t) => {
  t.notThrows(() => requireBytes(Buffer.from('x'), { digest, size: 1 }));
  t.throws(() => requireBytes(Buffer.from('y'), { digest, size: 1 }), { message: /failed precondition/ });
  t.throws(() => requireBytes(Buffer.from('x'), { digest, size: 2 }), { message: /failed precondition/ });
});

test('labels by which collection follows a document', (t) => {
  const manifestOf = { mediaType: OCI_MANIFEST, digest: 'm' };
  t.deepEqual(
    childLabels([
      { ...config, digest: 'c' },
      { ...layer, digest: 'a' },
      { ...layer, digest: 'b' },
      manifestOf,
      { mediaType: 'x/y', digest: 'z' },
    ]),
    {
      'containerd.io/gc.ref.content.config': 'c',
      'containerd.io/gc.ref.content.l.0': 'a',
      'containerd.io/gc.ref.content.l.1': 'b',
      'containerd.io/gc.ref.content.m.0': 'm',
      'containerd.io/gc.ref.content.0': 'z',
    },
  );
});

test('platforms: what runs where, best first', (t) => {
  const of = (text: string): Platform => {
    const [os, architecture, variant = ''] = text.split('/') as [string, string, string?];
    return { os, architecture, variant };
  };
  t.is(rank(of('linux/amd64'), [of('linux/amd64')]), 0);
  t.is(rank(of('linux/arm64/v8'), [of('linux/arm64')]), 0);
  t.is(rank(of('linux/x86_64'), [of('linux/amd64')]), 0);
  t.true(rank(of('linux/arm/v7'), [of('linux/arm64')])! > rank(of('linux/arm64'), [of('linux/arm64')])!);
  t.true(rank(of('linux/arm/v6'), [of('linux/arm/v7')])! > 0);
  t.is(rank(of('linux/arm/v7'), [of('linux/arm/v6')]), undefined);
  t.is(rank(of('windows/amd64'), [of('linux/amd64')]), undefined);
  t.is(rank(of('linux/s390x'), [of('linux/amd64')]), undefined);
  t.true(rank(of('linux/arm64'), [of('linux/amd64'), of('linux/arm64')])! >= 100);
  t.deepEqual(normalize(of('Linux/aarch64/v8')), of('linux/arm64'));
  t.is(hostPlatform().os, 'linux');
});
