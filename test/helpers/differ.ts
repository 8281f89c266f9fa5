/** The differ in this thread, with a content store beside it, and what its tests apply. */
import { createHash } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Failure } from 'troupe/plugin';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { unmountAll } from 'troupe/sys';
import { inProcess } from './in-process.ts';
import content from '../../plugins/content/index.ts';
import { archive, entry } from '../../plugins/lib/tar/craft.ts';
import diff from '../../plugins/diff/index.ts';

export const id = 'io.containerd.differ.v1.walking';
export const contentId = 'io.containerd.content.v1.content';
export const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
export const TAR = 'application/vnd.oci.image.layer.v1.tar';
export const config = {
  default: ['walking'],
  sync_fs: false,
  threads: 2,
  queue: 16,
  inflate: 'auto',
  max_unpacked_bytes: 0,
  max_entries: 1000,
  verify_timeout: 10_000,
};
export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Locks of refs are the whole process's, and tests run side by side in it. */
let refs = 0;

export async function setUp(
  t: ExecutionContext,
  options: Partial<Omit<typeof config, 'inflate'>> & { readonly inflate?: 'auto' | 'zlib' } = {},
) {
  const daemon = inProcess(t, 'content', 'leases');
  await daemon.add(content, { id: contentId, prefix: 'content', config: { content_sharing_policy: 'shared' } });
  const plugin = await daemon.add(diff, { id, config: { ...config, ...options } });
  const blobs = daemon.client(ContentDefinition, { namespace: 'default' });
  const store = async (bytes: Buffer): Promise<string> => {
    async function* requests(): AsyncGenerator<WriteContentRequest> {
      yield WriteContentRequest.fromPartial({ action: WriteAction.WRITE, ref: `r${refs++}`, data: bytes });
      yield WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, offset: BigInt(bytes.length) });
    }
    for await (const _ of blobs.write(requests()));
    return sha256(bytes);
  };
  const directory = (name: string): string => {
    const path = join(daemon.root, 'layers', name);
    mkdirSync(path, { recursive: true });
    return path;
  };
  const client = daemon.client(DiffDefinition, { namespace: 'default' });
  t.teardown(() => unmountAll(daemon.root));
  return { daemon, plugin, client, blobs, store, directory };
}

export const bind = (source: string, mode: 'rw' | 'ro' = 'rw') => ({ type: 'bind', source, options: [mode, 'rbind'] });
export const overlay = (lower: string[], upper?: string, work?: string) => ({
  type: 'overlay',
  source: 'overlay',
  options: [
    'index=off',
    ...(upper === undefined ? [] : [`workdir=${work}`, `upperdir=${upper}`]),
    `lowerdir=${lower.join(':')}`,
  ],
});
export const layer = archive(
  entry({ name: 'etc', type: '5', mode: 0o755 }),
  entry({ name: 'etc/hostname', body: 'troupe', uid: 7 }),
  entry({ name: '.wh.gone' }),
);

export const refusal = async (
  t: ExecutionContext,
  work: Promise<unknown>,
  code: Failure['code'],
  message: RegExp,
): Promise<void> => {
  const failure = (await t.throwsAsync(work, { instanceOf: Failure, message })) as Failure;
  t.is(failure.code, code);
};

export const detached = (upper: string) => ({ type: 'overlay', source: 'overlay', options: [`upperdir=${upper}`] });

export async function read(client: Awaited<ReturnType<typeof setUp>>['blobs'], digest: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const { data } of client.read({ digest })) parts.push(data);
  return Buffer.concat(parts);
}
