/**
 * Durable record writes: what a client waits for before it may believe that a lease, an image or a container is there.
 * Every call is answered after the fsync, by both daemons. Unary calls from outside the process, on the same file system.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ContainersDefinition,
  CreateContainerRequest,
  DeleteContainerRequest,
} from '../../proto/gen/containerd/services/containers/v1/containers.ts';
import {
  CreateImageRequest,
  DeleteImageRequest,
  ImagesDefinition,
} from '../../proto/gen/containerd/services/images/v1/images.ts';
import {
  CreateRequest,
  DeleteRequest,
  LeasesDefinition,
} from '../../proto/gen/containerd/services/leases/v1/leases.ts';
import { load } from '../loader.ts';
import { makeDisk } from '../disk.ts';
import { containerdInstalled, type Peer, startPeer } from '../peers.ts';
import type { Report, Row } from '../report.ts';

/** Calls of a timed run, about a second's worth for the slower of the two. */
const runs = new Map([
  [1, 800],
  [8, 1500],
  [64, 4000],
]);
const inFlights = [...runs.keys()];
/** Calls that are not timed, of each noun and step: code that is compiled while it is measured says nothing about the days after. */
const warmUp = 4000;

interface Noun {
  readonly name: string;
  readonly create: { readonly method: string; request(index: number): Uint8Array };
  readonly remove: { readonly method: string; request(index: number): Uint8Array };
}

const labels = { 'bench/label': 'a value of the usual length', 'bench/other': '2' };
const digest = `sha256:${'ab'.repeat(32)}`;
const nouns: readonly Noun[] = [
  {
    name: 'Leases',
    create: {
      method: `${LeasesDefinition.fullName}/Create`,
      request: (index) => CreateRequest.encode(CreateRequest.fromPartial({ id: `lease-${index}`, labels })).finish(),
    },
    remove: {
      method: `${LeasesDefinition.fullName}/Delete`,
      request: (index) => DeleteRequest.encode(DeleteRequest.fromPartial({ id: `lease-${index}` })).finish(),
    },
  },
  {
    name: 'Images',
    create: {
      method: `${ImagesDefinition.fullName}/Create`,
      request: (index) =>
        CreateImageRequest.encode(
          CreateImageRequest.fromPartial({
            image: {
              name: `registry.test/image:${index}`,
              labels,
              target: { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: 1234 },
            },
          }),
        ).finish(),
    },
    remove: {
      method: `${ImagesDefinition.fullName}/Delete`,
      request: (index) =>
        DeleteImageRequest.encode(DeleteImageRequest.fromPartial({ name: `registry.test/image:${index}` })).finish(),
    },
  },
  {
    name: 'Containers',
    create: {
      method: `${ContainersDefinition.fullName}/Create`,
      request: (index) =>
        CreateContainerRequest.encode(
          CreateContainerRequest.fromPartial({
            container: {
              id: `container-${index}`,
              labels,
              image: 'registry.test/image:1',
              runtime: { name: 'io.containerd.runc.v2' },
              spec: {
                typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Spec',
                value: new TextEncoder().encode(
                  JSON.stringify({
                    ociVersion: '1.0.2',
                    process: { args: ['true'], env: Array(20).fill('NAME=value') },
                  }),
                ),
              },
            },
          }),
        ).finish(),
    },
    remove: {
      method: `${ContainersDefinition.fullName}/Delete`,
      request: (index) =>
        DeleteContainerRequest.encode(DeleteContainerRequest.fromPartial({ id: `container-${index}` })).finish(),
    },
  },
];

export async function bench(rounds: number): Promise<Report> {
  const disk = makeDisk(1024);
  const files = mkdtempSync(join(tmpdir(), 'troupe-requests-'));
  const rates = new Map<string, { troupe: number[]; containerd: number[] }>();
  const notes: string[] = [];
  const syncs = new Map<string, number>();
  const names: Peer['name'][] = containerdInstalled() ? ['troupe', 'containerd'] : ['troupe'];
  try {
    for (let round = 0; round < rounds; round++) {
      for (const name of names) {
        const peer = await startPeer(name, disk.dir);
        try {
          if (round === 0) {
            for (const inFlight of inFlights)
              syncs.set(`${name} ${inFlight}`, await syncsPerWrite(peer, nouns[0]!, inFlight, files));
          }
          for (const noun of nouns) {
            for (const step of ['create', 'remove'] as const) await burst(peer, noun, step, 64, warmUp, files);
            for (const [inFlight, perRun] of runs) {
              for (const step of ['create', 'remove'] as const) {
                const rate = await burst(peer, noun, step, inFlight, perRun, files);
                const key = `${noun.name}.${step === 'create' ? 'Create' : 'Delete'}, ${inFlight} in flight`;
                const each = rates.get(key) ?? { troupe: [], containerd: [] };
                each[name].push(rate);
                rates.set(key, each);
              }
            }
          }
        } finally {
          await peer.stop();
        }
      }
    }
  } finally {
    disk.remove();
    rmSync(files, { recursive: true, force: true });
  }
  const rows: Row[] = [...rates].map(([what, { troupe, containerd }]) => ({
    what,
    unit: '/s',
    ours: troupe,
    peer: containerd,
    more: true,
  }));
  for (const inFlight of inFlights) {
    const at = (name: Peer['name']) => syncs.get(`${name} ${inFlight}`)?.toFixed(3);
    notes.push(
      `fsyncs a write, Leases, ${inFlight} in flight: troupe ${at('troupe')}${names.length > 1 ? `, containerd ${at('containerd')}` : ''}`,
    );
  }
  return { title: 'Durable record writes', peer: 'containerd', rows, notes };
}

/** Attaches strace for one burst of creates and deletes, apart from the timed ones: it slows what it counts. */
async function syncsPerWrite(peer: Peer, noun: Noun, inFlight: number, files: string): Promise<number> {
  const trace = join(files, 'trace');
  const strace = spawn(
    'strace',
    [
      '-f',
      '-qq',
      '-e',
      'trace=fsync,fdatasync,sync_file_range,syncfs',
      '-e',
      'signal=none',
      '-o',
      trace,
      '-p',
      String(peer.pid),
    ],
    { stdio: 'ignore' },
  );
  const writes = 300;
  try {
    // Attached when every thread is traced.
    while (!/TracerPid:\t[1-9]/.test(readFileSync(`/proc/${peer.pid}/status`, 'utf8')))
      await new Promise((resolve) => setTimeout(resolve, 10));
    for (const step of ['create', 'remove'] as const) await burst(peer, noun, step, inFlight, writes, files);
  } finally {
    const ended = new Promise((resolve) => strace.once('exit', resolve));
    strace.kill('SIGINT');
    await ended;
  }
  const calls = readFileSync(trace, 'utf8')
    .split('\n')
    .filter((line) => /sync\w*\(/.test(line)).length;
  return calls / (2 * writes);
}

async function burst(
  peer: Peer,
  noun: Noun,
  step: 'create' | 'remove',
  inFlight: number,
  count: number,
  files: string,
): Promise<number> {
  const file = join(files, 'requests');
  const requests = Array.from({ length: count }, (_, index) => Buffer.from(noun[step].request(index)).toString('hex'));
  writeFileSync(file, `${requests.join('\n')}\n`);
  const { calls, seconds } = await load(peer.address, inFlight, count, noun[step].method, `@${file}`);
  return calls / seconds;
}
