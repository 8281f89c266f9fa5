/**
 * The client of the benchmarks (raw-client.ts), in a process of its own.
 *
 *   load.ts ADDRESS IN_FLIGHT SECONDS METHOD REQUEST_HEX      the same request over and over
 *   load.ts ADDRESS IN_FLIGHT COUNT METHOD @FILE              each line of FILE (hex) once
 *
 * Prints JSON: calls, seconds, failures, p50 and p99 in ms.
 */
import { readFileSync } from 'node:fs';
import { quantile, RawClient } from './raw-client.ts';

type Arguments = [address: string, inFlight: string, amount: string, method: string, request: string];
const [address, inFlight, amount, method, request] = process.argv.slice(2) as Arguments;
const list = request.startsWith('@') ? readFileSync(request.slice(1), 'utf8').split('\n').filter(Boolean) : undefined;

const requests = list?.map((hex) => Buffer.from(hex, 'hex'));
const same = Buffer.from(list === undefined ? request : '', 'hex');
const client = await RawClient.connect(address);
const times: number[] = [];
let failures = 0;
let failed = '';
let next = 0;
const until = requests === undefined ? performance.now() + Number(amount) * 1000 : Number.POSITIVE_INFINITY;

async function lane(): Promise<void> {
  while (requests === undefined ? performance.now() < until : next < requests.length) {
    const outcome = await client.call({ method, namespace: 'bench', request: requests?.[next++] ?? same });
    times.push(outcome.ms);
    if (outcome.status === '0') continue;
    failures += 1;
    failed ||= `${outcome.status} ${outcome.said}`;
  }
}

const began = performance.now();
await Promise.all(Array.from({ length: Number(inFlight) }, lane));
const seconds = (performance.now() - began) / 1000;
client.close();
const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
console.log(JSON.stringify({ calls: times.length, seconds, failures, failed, p50, p99 }));
