/** Every plugin is replaced while clients of all kinds use the daemon; and one whose next versions are broken in every way, while it is called without a pause. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { definitionFromFile } from '../../kernel/sdk/proto-file.ts';
import type { Client, ServiceDefinition } from '../../kernel/sdk/plugin.ts';
import { makeImages } from '../faults/images.ts';
import { fullMix, members } from '../faults/mix.ts';
import { Rig } from '../faults/rig.ts';
import { seed } from '../faults/sample.ts';
import { renderProblem } from '../faults/turn.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { needing } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';
import { useClient } from '../helpers/trouped.ts';

const mixTest = needing('root', 'mount', 'loop', 'cgroup', 'program ctr', 'program runc');

mixTest.serial(
  'F22 each plugin is reloaded under the mix: not a call fails, and what was acknowledged is there',
  async (t) => {
    t.timeout(300_000);
    t.log(`seed ${seed}`);
    const directory = mkdtempSync(join(tmpdir(), 'troupe-reload-images-'));
    const rig = new Rig({ seed: `reload ${seed}`, disk: 'tmpfs', images: makeImages(join(directory, 'images'), 2) });
    t.teardown(async () => {
      await rig.dispose();
      rmSync(directory, { recursive: true, force: true });
    });
    await rig.start();
    await rig.importBase();
    const kernel = useClient(t, rig.daemon, KernelDefinition);
    const { plugins } = await kernel.list({ ids: [] });
    const ids = plugins.filter(({ state }) => state === 'ready').map(({ id }) => id);
    t.true(ids.length > 12, ids.join());
    const mix = rig.mix(members(fullMix));
    for (const id of ids) {
      // Nothing tells of a round: the clients are asked. Each plugin goes while some of them are in the middle of one.
      for (const before = mix.total; mix.total === before && mix.problems.length === 0; ) await sleep(10);
      const { outcome, reason } = await kernel.reload({ id, force: true });
      t.is(outcome, 'reloaded', `${id}: ${reason}`);
    }
    await mix.stop();
    t.deepEqual(mix.problems.map(renderProblem), [], rig.log.slice(-30).join('\n'));
    t.deepEqual((await rig.check()).breaches, []);
    for (const { id, state, generation, restarts } of (await kernel.list({ ids })).plugins)
      t.deepEqual([state, generation, restarts], ['ready', 2, 0], id);
  },
);

const contract = 'example.steady.v1.Steady';
const files = (body: string, more = '') => ({
  'plugin.toml': `api = 1\nid = "example.steady.v1.steady"\n[serves."${contract}"]\nproto = "steady.proto"\npublic = true\n[deadlines]\nstart = "1s"\n`,
  'steady.proto': `syntax = "proto3";
package example.steady.v1;
service Steady { rpc Next(NextRequest) returns (NextResponse); rpc Run(NextRequest) returns (stream NextResponse); }
message NextRequest {}
message NextResponse { uint32 number = 1; uint32 generation = 2; }
`,
  'index.ts': `import { definePlugin, skip } from 'troupe/plugin';
${more}
export default definePlugin({ async start(ctx) {
  let number = 0;
  ${body}
  return {
    serve: { '${contract}': {
      next: () => ({ number: ++number, generation: ctx.generation }),
      async *run(_request, call) { for (let n = 1; ; n++) { yield { number: n, generation: ctx.generation }; await new Promise((resolve) => setTimeout(resolve, 5)); } },
    } },
    activate(state = 0) { number = state; activating(); },
    suspend: () => number,
  };
} });
const activating = globalThis.activating ?? (() => {});
`,
});
const inActivate = (what: string) => files('', `globalThis.activating = () => { ${what} };`);
const broken: readonly (readonly [what: string, text: ReturnType<typeof files>])[] = [
  ['does not parse', files('', 'export const x: number = ;')],
  ['throws at its import', files('', 'throw new Error("not today");')],
  ['throws in start', files('throw new Error("not today");')],
  ['hangs in start', files('await new Promise(() => {});')],
  ['loops in start', files('for (;;);')],
  ['ends its thread in start', files('process.exit(3);')],
  ['skips', files('throw skip("not here");')],
  ['throws in activate', inActivate('throw new Error("not now");')],
  ['loops in activate', inActivate('for (;;);')],
  ['ends its thread in activate', inActivate('process.exit(4);')],
];

interface Steady {
  next(request: object): Promise<{ number: number; generation: number }>;
  run(request: object): AsyncIterable<{ number: number; generation: number }>;
}

test('F22 versions that fail, hang or end their thread, under calls: none of those fails, and a stream ends on the generation that it began on', async (t) => {
  t.timeout(180_000);
  const folder = join(useScratch(t, 'steady'), 'steady');
  mkdirSync(folder);
  const write = (texts: Readonly<Record<string, string>>) => {
    for (const [file, text] of Object.entries(texts)) writeFileSync(join(folder, file), text);
  };
  write(files(''));
  const daemon = await useDaemon(t, { config: `version = 3\n[kernel]\nplugin_dirs = ["${folder}"]\n` });
  const kernel = useClient(t, daemon, KernelDefinition);
  const steady = useClient(t, daemon, definitionFromFile(contract, join(folder, 'steady.proto'))) as Steady &
    Client<ServiceDefinition>;
  const id = 'example.steady.v1.steady';

  let over = false;
  const numbers: number[] = [];
  const next = async (): Promise<number> => {
    const { number, generation } = await steady.next({});
    numbers.push(number);
    return generation;
  };
  const lanes = Array.from({ length: 8 }, async () => {
    while (!over) await next();
  });
  const streamed: { number: number; generation: number }[] = [];
  const streaming = (async () => {
    for await (const each of steady.run({})) {
      streamed.push(each);
      if (over) break;
    }
  })();
  for (const [what, text] of broken) {
    write(text);
    const { outcome, reason } = await kernel.reload({ id, force: true });
    t.is(outcome, 'kept', `${what}: ${reason}`);
    t.not(reason, '', what);
    t.is(await next(), 1, what);
  }
  write(files(''));
  t.is((await kernel.reload({ id, force: true })).outcome, 'reloaded');
  t.true((await next()) > 1);
  over = true;
  await Promise.all([...lanes, streaming]);
  // Each call was counted, once, by one generation or the next.
  t.deepEqual(
    numbers.toSorted((a, b) => a - b),
    numbers.map((_, index) => index + 1),
  );
  t.deepEqual(
    streamed.map(({ number }) => number),
    streamed.map((_, index) => index + 1),
  );
  t.deepEqual([...new Set(streamed.map(({ generation }) => generation))], [1]);
  t.is((await kernel.list({ ids: [id] })).plugins[0]?.restarts, 0);
});
