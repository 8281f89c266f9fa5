/** Archives in and out of a daemon through streams, as a client of containerd 2 sends and takes them. */
import type { ExecutionContext } from 'ava';
import { ImageExportStream, ImageImportStream } from 'troupe/proto/containerd/types/transfer/archive.ts';
import { GrpcClient } from '../../kernel/front/client.ts';
import { type Daemon, useDaemon } from './daemon.ts';
import { imageLayout } from './image.ts';
import { useScratch } from './scratch.ts';
import { OpenedStream, pack, storeEnd, transfer } from './transfer.ts';

export const host = { os: 'linux', architecture: process.arch === 'arm64' ? 'arm64' : 'amd64' };
export const image = imageLayout();
export const byAnnotation = [{ name: 'unnamed', isPrefix: true, allowOverwrite: true }];

export interface Rig {
  readonly dir: string;
  readonly daemon: Daemon;
  readonly client: GrpcClient;
}

export async function useRig(t: ExecutionContext): Promise<Rig> {
  const dir = useScratch(t, 'archives');
  const daemon = await useDaemon(t, {
    config: 'version = 3\n[plugins."io.containerd.transfer.v1.local"]\ndocker_config = "none"\n',
  });
  const client = new GrpcClient(daemon.address, { namespace: 'default' });
  t.teardown(() => client.close());
  return { dir, daemon, client };
}

let streams = 0;

export async function importBytes(
  { client }: Rig,
  bytes: Uint8Array,
  store: Parameters<typeof storeEnd>[0],
  forceCompress = false,
): Promise<string[]> {
  const stream = await OpenedStream.open(client, `import-${++streams}`, {});
  const sending = stream.sendBytes(bytes).catch(() => {});
  try {
    const seen = await transfer(
      client,
      pack(ImageImportStream, { stream: stream.id, forceCompress }),
      storeEnd(store),
      {},
    );
    return seen.filter(({ event }) => event === 'saved').map(({ name }) => name);
  } finally {
    stream.close();
    await sending;
  }
}

export async function exportBytes({ client }: Rig, name: string): Promise<Buffer> {
  const stream = await OpenedStream.open(client, `export-${++streams}`, {});
  const receiving = stream.receiveBytes();
  receiving.catch(() => {});
  try {
    await transfer(client, storeEnd({ name }), pack(ImageExportStream, { stream: stream.id, platforms: [host] }), {});
    return await receiving;
  } finally {
    stream.close();
  }
}
