/**
 * The client of the benchmarks: raw HTTP/2 with fixed headers, since a full gRPC client would be what is measured. Runs in a process of its own.
 *
 *   load.ts ADDRESS IN_FLIGHT SECONDS METHOD REQUEST_HEX      the same request over and over
 *   load.ts ADDRESS IN_FLIGHT COUNT METHOD @FILE              each line of FILE (hex) once
 *
 * Prints JSON: calls, seconds, failures, p50 and p99 in ms.
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { createConnection } from 'node:net';

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
const session = connect('http://localhost', {
  createConnection: () => createConnection(address),
  settings: { initialWindowSize: 4 << 20 },
});
await new Promise((resolve) => session.once('connect', resolve));
session.setLocalWindowSize(64 << 20);

const headers = {
  ':method': 'POST',
  ':path': `/${method}`,
  'content-type': 'application/grpc',
  te: 'trailers',
  'containerd-namespace': 'bench',
};
const times: number[] = [];
let failures = 0;
let failed = '';
let next = 0;
const until = list === undefined ? performance.now() + Number(amount) * 1000 : Number.POSITIVE_INFINITY;

function one(): Promise<void> {
  const began = performance.now();
  return new Promise((resolve) => {
    const stream = session.request(headers);
    let status = '';
    let said = '';
    stream.on('response', (head) => {
      status = String(head['grpc-status'] ?? status);
    });
    stream.on('trailers', (trailers) => {
      status = String(trailers['grpc-status'] ?? '');
      said = String(trailers['grpc-message'] ?? '');
    });
    stream.on('data', () => {});
    stream.on('error', () => {});
    stream.on('close', () => {
      if (status !== '0') {
        failures += 1;
        failed ||= `${status} ${said}`;
      }
      times.push(performance.now() - began);
      resolve();
    });
    stream.end(same ?? frames![next++]!);
  });
}

async function lane(): Promise<void> {
  while (frames === undefined ? performance.now() < until : next < frames.length) await one();
}

const began = performance.now();
await Promise.all(Array.from({ length: inFlight }, lane));
const seconds = (performance.now() - began) / 1000;
session.close();
times.sort((a, b) => a - b);
const at = (q: number) => times[Math.min(times.length - 1, Math.floor(times.length * q))] ?? 0;
console.log(JSON.stringify({ calls: times.length, seconds, failures, failed, p50: at(0.5), p99: at(0.99) }));
