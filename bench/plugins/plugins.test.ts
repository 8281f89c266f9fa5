/** The bench that tells what a change to a plugin has made of it, run as its user does. What it measures here means nothing: that it does is what is tested. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../../test/helpers/command.ts';
import { needing } from '../../test/helpers/privilege.ts';
import { useScratch } from '../../test/helpers/scratch.ts';
import type { Report } from '../report.ts';

const benchTest = needing('root', 'mount', 'loop', 'program ctr');
const bench = fileURLToPath(new URL('../run.ts', import.meta.url));
const leases = 'io.containerd.service.v1.leases-service';
const figures = ['calls', 'CPU of its thread a call', 'p50', 'p99'];

benchTest(
  'B32 calls of ctr are recorded and replayed against one plugin alone, and its figures stand beside those of a run before',
  async (t) => {
    t.timeout(180_000);
    const dir = useScratch(t, 'bench');
    const measure = async (file: string, ...more: string[]): Promise<Report & { readonly shown: string }> => {
      const args = [bench, 'plugins', leases, '--quick', '--rounds', '1', '--json', join(dir, file), ...more];
      const { code, signal, stdout, stderr } = await run(process.execPath, args, { timeoutMs: 120_000 });
      if (code !== 0) throw new Error(`the bench ended with ${code ?? signal}: ${stderr}${stdout}`);
      return { ...(JSON.parse(readFileSync(join(dir, file), 'utf8')) as Report), shown: stdout };
    };
    const first = await measure('first.json');
    t.deepEqual(
      first.rows.map(({ what }) => what),
      figures.map((figure) => `${leases}: ${figure}`),
    );
    for (const { what, ours, peer } of first.rows) {
      t.is(ours.length, 1, what);
      t.true(
        ours.every((value) => Number.isFinite(value) && value > 0),
        `${what}: ${ours.join()}`,
      );
      t.deepEqual(peer, []);
    }
    // `leases create` and `leases ls` at least; the commands before and after them are the others.
    const [, recorded, own] = /^(\d+) unary calls recorded; of the plugin: \S+ (\d+)$/.exec(first.notes[0] ?? '') ?? [];
    t.true(Number(own) >= 2, first.notes[0]);
    t.true(Number(recorded) >= 15, first.notes[0]);

    const second = await measure('second.json', '--baseline', join(dir, 'first.json'));
    t.deepEqual(
      second.rows.map(({ what, peer }) => [what, peer]),
      first.rows.map(({ what, ours }) => [what, ours]),
    );
    for (const figure of figures)
      t.regex(second.shown, new RegExp(`^${leases}: ${figure} .* [\\d.]+×$`, 'm'), second.shown);
  },
);
