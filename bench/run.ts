/**
 * `npm run bench -- NAME [PART …] [--rounds N] [--json FILE]`: one benchmark, beside its peer where that is installed, in interleaved rounds.
 *
 *   bus         messages between threads, against a bare port and comlink
 *   records     durable record writes at 1, 8 and 64 in flight, fsyncs per write
 *   rpc         unary calls at 1, 8 and 64 in flight, with a client outside the process
 *   footprint   boot time and idle memory, every plugin in its own thread and lean
 *   reload      reloads under load: failed calls, how long calls are held, time to the flip, memory; 40 of each plugin a round
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { machine, type Report, renderReport } from './report.ts';

const names = ['bus', 'records', 'rpc', 'footprint', 'reload'] as const;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '5' }, json: { type: 'string' } },
});
const name = names.find((each) => each === positionals[0]);
if (name === undefined) {
  console.error(`bench: name one of ${names.join(', ')}`);
  process.exit(2);
}
const { bench } = (await import(`./${name}/index.ts`)) as {
  bench: (rounds: number, only: readonly string[]) => Promise<Report>;
};
const report = await bench(Number(values.rounds), positionals.slice(1));
console.log(renderReport(report));
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ machine: machine(), ...report }, undefined, 2)}\n`);
