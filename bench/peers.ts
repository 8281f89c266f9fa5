/** The daemons that are measured, started the same way: a root, a state directory and a socket of their own on the same disk. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { GrpcClient, typedClient } from '../kernel/front/client.ts';
import { leftover } from './leftovers.ts';
import { RawClient } from './raw-client.ts';

const launcher = fileURLToPath(new URL('../kernel/trouped', import.meta.url));

export interface Peer {
  readonly name: 'troupe' | 'containerd';
  readonly address: string;
  readonly pid: number;
  /** Milliseconds from exec to a Health check that was served. */
  readonly bootMs: number;
  stop(): Promise<void>;
}

export function containerdInstalled(): boolean {
  try {
    execFileSync('containerd', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export interface PeerOptions {
  /** Added to our config file. */
  readonly config?: string;
  /** Hears what the daemon logs, from warnings upwards. */
  readonly onLog?: (line: string) => void;
}

export async function startPeer(name: Peer['name'], dir: string, options: PeerOptions = {}): Promise<Peer> {
  const home = join(dir, name);
  rmSync(home, { recursive: true, force: true });
  mkdirSync(home, { recursive: true });
  const address = join(home, 'grpc.sock');
  const config = join(home, 'config.toml');
  const places = ['--address', address, '--root', join(home, 'root'), '--state', join(home, 'state')];
  // CRI and its network are not what is compared, and cost the peer memory and time.
  writeFileSync(
    config,
    name === 'troupe'
      ? `version = 3\n${options.config ?? ''}`
      : 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n',
  );
  const began = performance.now();
  const child = spawn(
    name === 'troupe' ? launcher : 'containerd',
    ['--config', config, ...places, '--log-level', options.onLog === undefined ? 'error' : 'warn'],
    { stdio: ['ignore', 'ignore', options.onLog === undefined ? 'inherit' : 'pipe'] },
  );
  child.once(
    'exit',
    leftover(() => child.kill('SIGKILL')),
  );
  if (options.onLog !== undefined) createInterface({ input: child.stderr! }).on('line', options.onLog);
  const bootMs = await served(address, began);
  return { name, address, pid: child.pid!, bootMs, stop: () => stop(child) };
}

/** Asks in a way that costs next to nothing: a client that dials over and over would take one of the processors from what it waits for. */
async function served(address: string, began: number): Promise<number> {
  const method = `${HealthDefinition.fullName}/Check`;
  for (;;) {
    const client = existsSync(address) ? await RawClient.connect(address).catch(() => undefined) : undefined;
    const outcome = await client?.call({ method, namespace: '', request: new Uint8Array() });
    client?.close();
    if (outcome?.status === '0') {
      const ms = performance.now() - began;
      await requireServing(address);
      return ms;
    }
    if (performance.now() - began > 20_000)
      throw new Error(`nothing served at ${address}: ${outcome?.said ?? 'no socket'}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

async function requireServing(address: string): Promise<void> {
  const client = new GrpcClient(address);
  const { status } = await typedClient(client, HealthDefinition).check({ service: '' }, { timeoutMs: 5000 });
  client.close();
  if (status !== 1) throw new Error(`${address} answers, and says that it does not serve (${status})`);
}

function stop(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
  });
}

/** Kilobytes of resident memory, of which anonymous. */
export function memoryOf(pid: number): { rss: number; anonymous: number; pss: number } {
  const field = (text: string, name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return { rss: field(rollup, 'Rss'), anonymous: field(rollup, 'Anonymous'), pss: field(rollup, 'Pss') };
}

/** Seconds of CPU that the process has used, children not counted. */
export function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
