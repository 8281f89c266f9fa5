/** A client that stops reading in the middle of a large blob, while every plugin is reloaded under it: memory stays, and the bytes come when it goes on. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { useDaemon } from '../helpers/daemon.ts';

const mebibyte = 1 << 20;
const parts = 1024;
const stallMs = 8000;
/** What the daemon may hold of it: windows of the bus and of HTTP/2, and what a socket takes. */
const slackMb = 64;

const residentMb = (pid: number) =>
  Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;

test('B28 a stalled client of a 1 GiB Content.Read costs no memory, and reads on to the right digest', async (t) => {
  t.timeout(300_000);
  const daemon = await useDaemon(t);
  const client = new GrpcClient(daemon.address, { namespace: 'stall' });
  t.teardown(() => client.close());
  const content = typedClient(client, ContentDefinition);
  const part = Buffer.alloc(mebibyte);
  const hash = createHash('sha256');
  async function* requests() {
    for (let index = 0; index < parts; index++) {
      part.fill(index & 255, 0, 4096);
      hash.update(part);
      yield WriteContentRequest.fromPartial({
        action: WriteAction.WRITE,
        ref: 'large',
        offset: BigInt(index * mebibyte),
        data: part,
      });
    }
    const total = BigInt(parts * mebibyte);
    yield WriteContentRequest.fromPartial({
      action: WriteAction.COMMIT,
      offset: total,
      total,
      labels: { 'containerd.io/gc.root': 'x' },
    });
  }
  let digest = '';
  for await (const reply of content.write(requests(), { timeoutMs: 240_000 })) digest = reply.digest;
  t.is(digest, `sha256:${hash.digest('hex')}`);

  const got = createHash('sha256');
  let at = 0;
  for await (const { offset, data } of content.read({ digest, offset: 0n, size: 0n })) {
    t.is(Number(offset), at);
    got.update(data);
    const stalls = at < 8 * mebibyte && at + data.length >= 8 * mebibyte;
    at += data.length;
    if (!stalls) continue;
    // What is under way arrives; then nothing moves.
    await sleep(1000);
    const before = residentMb(daemon.pid);
    let most = 0;
    for (let waited = 0; waited < stallMs; waited += 500) {
      await sleep(500);
      most = Math.max(most, residentMb(daemon.pid));
    }
    t.true(most < before + slackMb, `${before.toFixed(0)} MB before, up to ${most.toFixed(0)} MB while nobody read`);
    // The plugin that reads it is replaced meanwhile, and so is everybody else.
    const kernel = typedClient(client, KernelDefinition);
    const { plugins } = await kernel.list({ ids: [] });
    for (const { id, state } of plugins) {
      if (state !== 'ready') continue;
      const { outcome, reason } = await kernel.reload({ id, force: true }, { timeoutMs: 60_000 });
      t.is(outcome, 'reloaded', `${id}: ${reason}`);
    }
  }
  t.is(at, parts * mebibyte);
  t.is(`sha256:${got.digest('hex')}`, digest);
});
