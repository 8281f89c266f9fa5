/** A disk with no space left: every write says so, deletes and collection work and make room, nothing is lost, the daemon stays. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from 'troupe/plugin';
import { write } from './clients/contents.ts';
import type { DiskKind } from './disk.ts';
import type { ImageSet } from './images.ts';
import { diskMix, members } from './mix.ts';
import type { Report } from './report.ts';
import { Rig } from './rig.ts';
import { renderProblem, type Turn } from './turn.ts';

export interface FullOptions {
  readonly images: ImageSet;
  readonly seed: number;
  readonly disk: DiskKind;
}

const bytes = 96 << 20;
const blobBytes = 4 << 20;
/** More records than fit into what a full disk's log has left. */
const manyRecords = 20_000;

export async function fullRun(report: Report, { images, seed, disk }: FullOptions): Promise<void> {
  const rig = new Rig({ seed: `full ${seed}`, disk, bytes, images });
  const run = (name: string, work: () => Promise<readonly string[]>) =>
    report.run(
      { scenario: 'full disk', name: `${disk}, ${name}`, replay: `--only full --seed ${seed}`, log: () => rig.log },
      work,
    );
  const foreign = join(rig.disk.point, 'foreign');
  try {
    let pid = 0;
    const steps: [string, () => Promise<readonly string[]>][] = [
      [
        'before it is',
        async () => {
          await rig.start();
          ({ pid } = rig.daemon);
          await rig.importBase();
          return rig.warmUp(members(diskMix));
        },
      ],
      ['content until it is', async () => [...(await fillWithContent(rig)), ...(await rig.check()).breaches]],
      ['everybody writes', () => everybodyWrites(rig)],
      [
        'somebody else takes the rest',
        async () => {
          spawnSync('fallocate', ['-l', String(rig.disk.freeBytes), foreign]);
          spawnSync('dd', ['if=/dev/zero', `of=${foreign}`, 'bs=4096', 'oflag=append', 'conv=notrunc'], {
            stdio: 'ignore',
          });
          const faults = [...(await fillWithRecords(rig)), ...(await everybodyWrites(rig))];
          return [...faults, ...(await rig.check()).breaches];
        },
      ],
      ['deletes make room', () => deletesMakeRoom(rig)],
      [
        'and all is as before',
        async () => {
          rmSync(foreign, { force: true });
          await untilAccepted(rig);
          const mix = rig.mix(members(diskMix), 2);
          await mix.finished();
          mix.abandon();
          const { breaches } = await rig.check();
          const same = rig.daemon.pid === pid && process.kill(pid, 0);
          return [...mix.problems.map(renderProblem), ...breaches, ...(same ? [] : ['the daemon did not stay'])];
        },
      ],
    ];
    for (const [name, work] of steps) if (!(await run(name, work))) return;
  } finally {
    await rig.dispose();
  }
}

/** Blobs until one is refused, and how that is said. */
async function fillWithContent(rig: Rig): Promise<string[]> {
  const failure = await untilRefused(rig, 'filler', bytes / blobBytes + 1, async (turn) => {
    await write(turn, `${turn.unique('blob')}~${blobBytes}`, blobBytes);
  });
  return judge('content.write', failure);
}

async function fillWithRecords(rig: Rig): Promise<string[]> {
  const failure = await untilRefused(rig, 'records', manyRecords, async (turn) => {
    const id = turn.unique('lease');
    const labels = { faults: 'x'.repeat(2000) };
    await turn.ask('leases.create', [{ object: turn.object('lease', id), state: { labels } }], () =>
      turn.leases.create({ id, labels }),
    );
  });
  return judge('leases.create', failure);
}

async function untilRefused(
  rig: Rig,
  name: string,
  limit: number,
  work: (turn: Turn) => Promise<void>,
): Promise<Failure | undefined> {
  let failure: Failure | undefined;
  await rig
    .once(name, async (turn) => {
      for (let count = 0; count < limit && failure === undefined; count++) {
        try {
          await work(turn);
        } catch (error) {
          failure = Failure.from(error);
        }
      }
    })
    .catch(() => {});
  return failure;
}

/** Records look once a second whether there is room again. @throws Failure when there is none after five */
async function untilAccepted(rig: Rig): Promise<void> {
  const end = performance.now() + 5000;
  for (let round = 0; ; round++) {
    const failure = await untilRefused(rig, `again-${round}`, 1, async (turn) => {
      const id = turn.unique('lease');
      const labels = { faults: id };
      await turn.ask('leases.create', [{ object: turn.object('lease', id), state: { labels } }], () =>
        turn.leases.create({ id, labels }),
      );
    });
    if (failure === undefined) return;
    if (performance.now() > end || !saysFull(failure)) throw failure;
    await sleep(200);
  }
}

function judge(call: string, failure: Failure | undefined): string[] {
  if (failure === undefined) return [`${call} was never refused`];
  return saysFull(failure) ? [] : [`${call} was refused with ${failure.code}: ${failure.message}`];
}

/** By its code where the client gets it, and by its words, which are all that `ctr` prints. */
function saysFull({ code, message }: { code: string; message: string }): boolean {
  return /no space left/.test(message) && (code === 'ResourceExhausted' || message.startsWith('ctr '));
}

async function everybodyWrites(rig: Rig): Promise<string[]> {
  const mix = rig.mix(members(diskMix), 2);
  await mix.finished();
  mix.abandon();
  const others = mix.problems.filter((problem) => !saysFull(problem));
  const faults = others.map(renderProblem);
  if (mix.problems.length === 0) faults.push('nothing was refused');
  return faults;
}

/** All that the filler wrote, one blob at a time; then the space is there again. */
async function deletesMakeRoom(rig: Rig): Promise<string[]> {
  const before = rig.disk.freeBytes;
  await rig.once('deleter', async (turn) => {
    const digests: string[] = [];
    for await (const { info } of turn.content.list({ filters: [`size==${blobBytes}`] }))
      digests.push(...info.map((each) => each.digest));
    for (const digest of digests)
      await turn.ask('content.delete', [{ object: turn.object('content', digest), state: null }], () =>
        turn.content.delete({ digest }),
      );
    const { leases } = await turn.leases.list({ filters: [] });
    for (const { id } of leases.filter((each) => each.id.includes('-records-')))
      await turn.ask('leases.delete', [{ object: turn.object('lease', id), state: null }], () =>
        turn.leases.delete({ id, sync: false }),
      );
  });
  const { breaches } = await rig.check();
  const gained = rig.disk.freeBytes - before;
  return [...breaches, ...(gained > 10 * blobBytes ? [] : [`deleting gave back ${gained} bytes`])];
}
