/**
 * A program that uses content, images and containers in one process, to be killed while it does. Not a test: crash.test.ts runs it.
 *
 *     node content-crash.ts work DIR      does a bit of everything, and prints the name of each step it had an answer to
 *     node content-crash.ts resume DIR    the same after looking at what a killed one left: what is there already is fine, and what fails is
 *                                         asked again
 *
 * Lines are JSON: names of steps, and before and after the steps of `resume` what was found on disk and in the records.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Failure, type Log, type Service } from 'troupe/plugin';
import { Container, ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { Image, ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { containersService } from '../../plugins/containers/service.ts';
import { Store as ContainerStore } from '../../plugins/containers/store.ts';
import { Disk } from '../../plugins/content/disk.ts';
import { contentService } from '../../plugins/content/service.ts';
import { Store } from '../../plugins/content/store.ts';
import { Trash } from '../../plugins/content/trash.ts';
import { Writers } from '../../plugins/content/writers.ts';
import { imagesService } from '../../plugins/images/service.ts';
import { Store as ImageStore } from '../../plugins/images/store.ts';
import { openTestRecords } from '../helpers/records.ts';
import { direct } from './direct.ts';

const [mode, dir] = process.argv.slice(2) as ['work' | 'resume', string];
const noTest = { teardown() {} } as unknown as ExecutionContext;
const records = openTestRecords(noTest, { path: join(dir, 'records.db') }, 'content', 'images', 'containers', 'leases');
const root = join(dir, 'content');
const disk = new Disk(root);
disk.prepare();
const store = new Store(records.records);
const held = new Map<string, Promise<unknown>>();
const exclusive = <T>(name: string, work: () => Promise<T> | T): Promise<T> => {
  const run = (held.get(name) ?? Promise.resolve()).then(work);
  held.set(
    name,
    run.catch(() => {}),
  );
  return run;
};
const log: Log = { debug() {}, info() {}, warn() {}, error() {} };
const trash = new Trash(store, disk, exclusive, log, new AbortController().signal);
const writers = new Writers(
  store,
  disk,
  exclusive,
  () => 'shared',
  (digest) => trash.reconsider(digest),
);
await trash.reconcileIngests();
await trash.reconcileBlobs();
await trash.empty().catch(() => {});

const content = direct(ContentDefinition, contentService(store, disk, writers));
const images = direct(
  ImagesDefinition,
  imagesService(new ImageStore(records.as('images')), { collect: async () => {} }) as Service<typeof ImagesDefinition>,
);
const containers = direct(ContainersDefinition, containersService(new ContainerStore(records.as('containers'))));
const n = { namespace: 'n' };
const sha256 = (data: Uint8Array | string) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

/** Calls of which each must be answered; then the step's name is printed. */
async function step(name: string, ...calls: (() => Promise<unknown>)[]): Promise<void> {
  for (const call of calls) await answered(call);
  writeSync(1, `${JSON.stringify(name)}\n`);
}

async function answered(call: () => Promise<unknown>): Promise<void> {
  for (let tries = mode === 'resume' ? 20 : 1; ; tries -= 1) {
    try {
      await call();
      return;
    } catch (error) {
      // What an earlier run has done is an answer too.
      if (Failure.is(error, 'AlreadyExists') || Failure.is(error, 'NotFound')) return;
      if (tries <= 1) throw error;
    }
  }
}

async function write(
  namespace: string,
  ...requests: Parameters<typeof WriteContentRequest.fromPartial>[0][]
): Promise<void> {
  async function* stream() {
    for (const request of requests) yield WriteContentRequest.fromPartial(request);
  }
  for await (const _ of content.write(stream(), { namespace }));
}

async function work(): Promise<void> {
  const big = Buffer.alloc(300_000, 'big');
  const target = { digest: sha256('kept'), mediaType: 'm', size: 4n };
  await step('partial', () => write('n', { ref: 'partial', action: WriteAction.WRITE, data: Buffer.from('hello') }));
  await step('kept', () =>
    write('n', { ref: 'kept', action: WriteAction.COMMIT, data: Buffer.from('kept'), labels: { a: 'b' } }),
  );
  await step('big', () =>
    write(
      'n',
      { ref: 'big', total: 300_000n, expected: sha256(big) },
      { action: WriteAction.WRITE, offset: 0n, data: big.subarray(0, 100_000) },
      { action: WriteAction.COMMIT, offset: 100_000n, data: big.subarray(100_000) },
    ),
  );
  await step('shared', () =>
    write('m', { ref: 'shared', expected: sha256('kept') }, { action: WriteAction.COMMIT, offset: 4n }),
  );
  await step('labelled', () =>
    content.update(
      {
        info: { digest: sha256('kept'), size: 0n, labels: { c: 'd' }, createdAt: undefined, updatedAt: undefined },
        updateMask: ['labels.c'],
      },
      n,
    ),
  );
  await step(
    'aborted',
    () => write('n', { ref: 'aborted', action: WriteAction.WRITE, data: Buffer.from('x') }),
    () => content.abort({ ref: 'aborted' }, n),
  );
  await step(
    'deleted',
    () => write('n', { ref: 'deleted', action: WriteAction.COMMIT, data: Buffer.from('deleted') }),
    () => content.delete({ digest: sha256('deleted') }, n),
  );
  await answered(() => trash.empty());
  const image = (labels: { [key: string]: string }) => Image.fromPartial({ name: 'i', target, labels });
  await step('image', () => images.create({ image: image({}), sourceDateEpoch: undefined }, n));
  await step('image updated', () =>
    images.update({ image: image({ a: 'b' }), updateMask: [], sourceDateEpoch: undefined }, n),
  );
  await step(
    'image deleted',
    () => images.create({ image: Image.fromPartial({ name: 'j', target }), sourceDateEpoch: undefined }, n),
    () => images.delete({ name: 'j', sync: false, target: undefined }, n),
  );
  const container = (id: string, labels: { [key: string]: string }) =>
    Container.fromPartial({ id, runtime: { name: 'r' }, spec: { typeUrl: 't' }, labels });
  await step('container', () => containers.create({ container: container('c', {}) }, n));
  await step('container updated', () =>
    containers.update({ container: container('c', { a: 'b' }), updateMask: [] }, n),
  );
  await step(
    'container deleted',
    () => containers.create({ container: container('d', {}) }, n),
    () => containers.delete({ id: 'd' }, n),
  );
}

/** What is wrong with the store, and what there is, looked at without it: SQL, readdir and a digest of one's own. */
function check(): { problems: string[]; found: object } {
  const problems: string[] = [];
  const blobs = records.rows<{ ns: string; digest: string; size: number; labels: string }>(
    'SELECT ns, digest, size, labels FROM content_blob',
  );
  for (const { digest, size } of blobs) {
    const file = join(root, 'blobs', 'sha256', digest.slice(7));
    if (!existsSync(file)) problems.push(`no file for ${digest}`);
    else if (statSync(file).size !== size || sha256(readFileSync(file)) !== digest)
      problems.push(`${digest} is damaged`);
    else if ((statSync(file).mode & 0o7777) !== 0o444) problems.push(`${digest} has another mode`);
  }
  const algorithm = join(root, 'blobs', 'sha256');
  for (const hex of existsSync(algorithm) ? readdirSync(algorithm) : [])
    if (!blobs.some(({ digest }) => digest === `sha256:${hex}`)) problems.push(`no record for ${hex}`);
  const ingests = records.rows<{ ref: string; directory: string }>('SELECT ref, directory FROM content_ingest');
  const directories = readdirSync(join(root, 'ingest'));
  for (const { ref, directory } of ingests)
    if (!existsSync(join(root, 'ingest', directory, 'data'))) problems.push(`no data for ${ref}`);
  for (const name of directories)
    if (!ingests.some(({ directory }) => directory === name)) problems.push(`no ingest for ${name}`);
  if (records.rows('records_trash').length > 0) problems.push('trash is left');
  return {
    problems,
    found: {
      blobs: Object.fromEntries(blobs.map(({ ns, digest, labels }) => [`${ns} ${digest}`, JSON.parse(labels)])),
      ingests: Object.fromEntries(
        ingests.map(({ ref, directory }) => [
          ref,
          readFileSync(join(root, 'ingest', directory, 'data'), 'utf8').length,
        ]),
      ),
      images: Object.fromEntries(
        records
          .rows<{ name: string; labels: string }>('SELECT name, labels FROM images_image')
          .map(({ name, labels }) => [name, JSON.parse(labels)]),
      ),
      containers: Object.fromEntries(
        records
          .rows<{ id: string; labels: string }>('SELECT id, labels FROM containers_container')
          .map(({ id, labels }) => [id, JSON.parse(labels)]),
      ),
    },
  };
}

const report = () => writeSync(1, `${JSON.stringify(check())}\n`);
if (mode === 'resume') report();
await work();
if (mode === 'resume') {
  for (let tries = 0; tries < 10 && store.trash(1).length > 0; tries += 1) await answered(() => trash.empty());
  report();
}
process.exit(0);
