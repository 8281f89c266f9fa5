import test, { type ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import { digestOf } from '../lib/digest/digest.ts';
import type { Descriptor } from '../lib/image/document.ts';
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST } from '../lib/image/media-type.ts';
import { type Selection, walk } from './tree.ts';

const everything: Selection = { platforms: [], allMetadata: false, manifestLimit: 0 };
const amd64 = { os: 'linux', architecture: 'amd64', variant: '' };

/** Documents by digest, and how often each was asked for. */
class Store {
  readonly asked = new Map<string, number>();
  readonly #bytes = new Map<string, Uint8Array>();

  put(mediaType: string, value: unknown): Descriptor {
    const bytes = Buffer.from(JSON.stringify(value));
    const digest = digestOf(bytes);
    this.#bytes.set(digest, bytes);
    return { mediaType, digest, size: bytes.length, annotations: {}, platform: undefined, urls: [] };
  }

  bytes(digest: string): Uint8Array | undefined {
    return this.#bytes.get(digest);
  }

  index(manifests: readonly Partial<Descriptor>[]): Descriptor {
    return this.put(OCI_INDEX, { schemaVersion: 2, manifests });
  }

  manifest(name: string, change: { config?: object } = {}): Descriptor {
    const config = this.put(OCI_CONFIG, {
      os: 'linux',
      architecture: 'amd64',
      name,
      rootfs: { diff_ids: [] },
      ...change.config,
    });
    return this.put(OCI_MANIFEST, {
      schemaVersion: 2,
      config: plain(config),
      layers: [{ mediaType: OCI_LAYER, digest: digestOf(name), size: 1 }],
    });
  }

  async walk(root: Descriptor, selection: Selection = everything): Promise<string[]> {
    const images: string[] = [];
    const read = async ({ digest }: Descriptor): Promise<Uint8Array> => {
      this.asked.set(digest, (this.asked.get(digest) ?? 0) + 1);
      return this.#bytes.get(digest)!;
    };
    await walk(
      root,
      selection,
      {
        document: read,
        config: read,
        image: async ({ descriptor }) => void images.push(descriptor.digest),
      },
      async (work) => void (await Promise.all(work.map((each) => each()))),
    );
    return images;
  }
}

function plain({ mediaType, digest, size }: Descriptor): Partial<Descriptor> {
  return { mediaType, digest, size };
}

async function refusal(t: ExecutionContext, work: Promise<unknown>): Promise<[string, string]> {
  const failure = (await t.throwsAsync(work, { instanceOf: Failure })) as Failure;
  return [failure.code, failure.message];
}

test('56, CVE-2026-53493: what several indexes name is looked at once', async (t) => {
  const store = new Store();
  const image = store.manifest('one');
  let root = store.index(Array(10_000).fill(plain(image)));
  // And four names for that: forty thousand ways down to four documents.
  root = store.index(Array(4).fill(plain(root)));
  t.deepEqual(await store.walk(root), [image.digest]);
  t.deepEqual([...new Set(store.asked.values())], [1]);
  t.is(store.asked.size, 4);
});

test('56: indexes in indexes end somewhere', async (t) => {
  const store = new Store();
  const image = store.manifest('deep');
  let root = image;
  for (let depth = 0; depth < 8; depth++) root = store.index([plain(root)]);
  t.deepEqual(await store.walk(root), [image.digest]);
  for (let depth = 0; depth < 42; depth++) root = store.index([plain(root)]);
  const [code, message] = await refusal(t, store.walk(root));
  t.is(code, 'InvalidArgument');
  t.regex(message, /^document sha256:\w{64}: lies deeper than 8 indexes: invalid argument$/);
});

test('56: more documents than any image has', async (t) => {
  const store = new Store();
  const child = (at: number) => ({ mediaType: OCI_INDEX, digest: digestOf(`${at}`), size: 2 });
  const half = (from: number) => store.index(Array.from({ length: 10_000 }, (_, at) => child(from + at)));
  const empty = Buffer.from('{"manifests":[]}');
  const root = store.index([plain(half(0)), plain(half(10_000)), plain(half(20_000))]);
  const walked = walk(
    root,
    everything,
    {
      document: async (descriptor) => store.bytes(descriptor.digest) ?? empty,
      config: async () => empty,
      image: async () => {},
    },
    async (work) => void (await Promise.all(work.map((each) => each()))),
  );
  t.regex((await refusal(t, walked))[1], /is one of more than 20000: invalid argument$/);
});

test('65: nothing for the platform, whatever the index calls its platforms', async (t) => {
  const store = new Store();
  const image = plain(store.manifest('other'));
  const wish = { ...everything, platforms: [amd64] };
  for (const platform of [
    { os: 'linux', architecture: 's390x' },
    { os: 'plan9', architecture: 'amd64' },
    { os: 'x'.repeat(1000), architecture: 'y'.repeat(1000) },
    { os: '__proto__', architecture: 'constructor' },
  ]) {
    const root = store.index([{ ...image, platform } as Partial<Descriptor>]);
    t.deepEqual(await refusal(t, store.walk(root, wish)), [
      'NotFound',
      `image ${root.digest}: no match for platform in manifest (linux/amd64): not found`,
    ]);
  }
  // A megabyte is no name of a platform.
  const long = store.index([{ ...image, platform: { os: 'x'.repeat(1 << 20), architecture: 'y' } } as never]);
  t.is((await refusal(t, store.walk(long, wish)))[0], 'InvalidArgument');
  // One that says none may be for any.
  t.is((await store.walk(store.index([image]), wish)).length, 1);
  t.is((await refusal(t, store.walk(store.index([]), wish)))[0], 'NotFound');
});
