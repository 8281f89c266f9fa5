/**
 * `npm run bench -- NAME [PART …] [--rounds N] [--json FILE] [--svg DIR]`: one benchmark, beside its peer where that is installed, in interleaved rounds.
 *
 *   bus         messages between threads, against a bare port and comlink
 *   records     durable record writes at 1, 8 and 64 in flight, fsyncs per write
 *   rpc         unary calls at 1, 8 and 64 in flight, with a client outside the process
 *   footprint   boot time and idle memory, every plugin in its own thread and lean
 *   reload      reloads under load: failed calls, how long calls are held, time to the flip, memory; 40 of each plugin a round
 *   supervise   from a crash, a hang and a full heap of a plugin to serving again, and what the others notice
 *   plugins     calls that ctr made, once more and many times, against each plugin or those named: [--baseline FILE] a --json of before, [--quick] a tenth of the time
 *   unpack      images onto a disk; [--image NAME] one of them, [--images DIR] keeps what is built, [--quick] a twelfth of the size
 *   pull        images from a local registry onto a disk, imports through Transfer, and a crowd that wants the same image
 *   export      images from the store into an archive
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { renderChart } from './chart.ts';
import { machine, type Report, renderReport } from './report.ts';

export interface BenchOptions {
  /** What of it, by names of its own; empty: all. */
  readonly parts: readonly string[];
  /** Small inputs, to see that it runs: the figures mean nothing. */
  readonly quick: boolean;
  /** Where built images are kept from run to run; undefined: for this run only. */
  readonly images: string | undefined;
  /** One image of those that the benchmark has. */
  readonly image: string | undefined;
  /** Path of figures to compare with; undefined: none. */
  readonly baseline: string | undefined;
}

const names = [
  'bus',
  'records',
  'rpc',
  'footprint',
  'reload',
  'supervise',
  'plugins',
  'unpack',
  'pull',
  'export',
] as const;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
    svg: { type: 'string' },
    quick: { type: 'boolean', default: false },
    images: { type: 'string' },
    image: { type: 'string' },
    baseline: { type: 'string' },
  },
});
const name = names.find((each) => each === positionals[0]);
if (name === undefined) {
  console.error(`bench: name one of ${names.join(', ')}`);
  process.exit(2);
}
const { bench } = (await import(`./${name}/index.ts`)) as {
  bench: (rounds: number, options: BenchOptions) => Promise<Report>;
};
const { quick, images, image, baseline } = values;
const { charts = [], ...report } = await bench(Number(values.rounds), {
  parts: positionals.slice(1),
  quick,
  images,
  image,
  baseline,
});
console.log(renderReport(report));
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine: machine(), ...report }, undefined, 2)}\n`);
if (values.svg !== undefined) {
  mkdirSync(values.svg, { recursive: true });
  for (const chart of charts) writeFileSync(join(values.svg, `${chart.name}.svg`), renderChart(chart));
}
