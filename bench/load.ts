/**
 * The client of the benchmarks (caller.ts), in a process of its own.
 *
 *   load.ts ADDRESS IN_FLIGHT SECONDS METHOD REQUEST_HEX      the same request over and over
 *   load.ts ADDRESS IN_FLIGHT COUNT METHOD @FILE              each line of FILE (hex) once
 *
 * Prints JSON: calls, seconds, failures, p50 and p99 in ms.
 */
import { readFileSync } from 'node:fs';
import { Caller } from './caller.ts';

const [address, inFlightText, amount, method, request] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string,
];
const inFlight = Number(inFlightText);
const list = request.startsWith('@') ? readFileSync(request.slice(1), 'utf8').split('\n').filter(Boolean) : undefined;

function framed(hex: string): Buffer {
  const message = Buffer.from(hex, 'hex');
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  message.copy(frame, 5);
  return frame;
}

const frames = list?.map(framed);
const same = frames === undefined ? framed(request) : undefined;
const caller = await Caller.open(address, method, [['containerd-namespace', 'bench']]);
const times: number[] = [];
let failures = 0;
let failed = '';
let next = 0;
const until = list === undefined ? performance.now() + Number(amount) * 1000 : Number.POSITIVE_INFINITY;

async function lane(): Promise<void> {
  while (frames === undefined ? performance.now() < until : next < frames.length) {
    const began = performance.now();
    const { status, message } = await caller.call(same ?? frames![next++]!);
    times.push(performance.now() - began);
    if (status === '0') continue;
    failures += 1;
    failed ||= `${status} ${message}`;
  }
}

const began = performance.now();
await Promise.all(Array.from({ length: inFlight }, lane));
const seconds = (performance.now() - began) / 1000;
caller.close();
times.sort((a, b) => a - b);
const at = (q: number) => times[Math.min(times.length - 1, Math.floor(times.length * q))] ?? 0;
console.log(JSON.stringify({ calls: times.length, seconds, failures, failed, p50: at(0.5), p99: at(0.99) }));
