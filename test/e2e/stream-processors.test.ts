/** A layer of a media type that only a program of the config knows. */
import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { ApplyRequest, DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { useScratch } from '../helpers/scratch.ts';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

/** An empty tar archive: two blocks of zeros. */
const archive = Buffer.alloc(1024);

test('a layer goes through the program that accepts its type, and others are refused as ever', async (t) => {
  const target = useScratch(t, 'target');
  const daemon = await useDaemon(t, {
    config: `version = 2
[stream_processors."test.base64"]
accepts = ["application/vnd.test.layer.v1.base64"]
returns = "application/vnd.oci.image.layer.v1.tar+gzip"
path = "base64"
args = ["-d"]
`,
  });
  const client = new GrpcClient(daemon.address, { namespace: 'processors' });
  t.teardown(() => client.close());
  const data = Buffer.from(gzipSync(archive).toString('base64'));
  const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
  async function* requests() {
    // Held, as the collection that follows the start may come after it.
    const labels = { 'containerd.io/gc.root': 'x' };
    yield WriteContentRequest.fromPartial({ action: WriteAction.COMMIT, ref: 'r', data, expected: digest, labels });
  }
  for await (const _ of typedClient(client, ContentDefinition).write(requests()));
  const apply = (mediaType: string) =>
    typedClient(client, DiffDefinition).apply(
      ApplyRequest.fromPartial({
        diff: { mediaType, digest, size: BigInt(data.length) },
        mounts: [{ type: 'bind', source: target, options: ['rbind', 'rw'] }],
      }),
    );
  const { applied } = await apply('application/vnd.test.layer.v1.base64');
  t.is(applied?.digest, `sha256:${createHash('sha256').update(archive).digest('hex')}`);
  t.is(applied?.mediaType, 'application/vnd.oci.image.layer.v1.tar');
  await t.throwsAsync(apply('application/vnd.test.layer.v1.rot13'), { message: /no processor for media-type/ });
  t.deepEqual(readdirSync(join(daemon.state, 'io.containerd.differ.v1.walking', 'processed', '1')), []);
});
