/**
 * Has a daemon go through what daemons do, so that the code of it lies compiled beside the images (enter.ts): a start, a few calls of each service, two reloads of
 * every plugin, an end. Once with a thread for each plugin, once lean. Run by kernel/setup; does nothing where it has been done for the images that are there.
 *
 * The daemon is on its own in a directory that goes afterwards. What fails here fails nobody: code that has not been kept is compiled when it is called.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KernelDefinition } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { GrpcClient, typedClient } from '../front/client.ts';
import { checkout, imagesDir, readIndex } from './find.ts';
import { callEverything } from './rehearsed-calls.ts';

const mark = join(imagesDir, 'rehearsed');
const startMs = 30_000;
const reloadMs = 20_000;
const stopMs = 15_000;
const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** The first generation to be given a state is the second, and the first to hand one on that it was given. */
const reloads = 2;

const proxies = ['snapshot', 'content', 'diff']
  .map((type) => `[proxy_plugins.rehearsed-${type}]\ntype = "${type}"\naddress = "/nonexistent.sock"\n`)
  .join('\n');

if (readIndex() !== undefined && !existsSync(mark)) {
  console.error('prebuilt: compiling ahead of what a daemon does (once, some seconds)');
  try {
    await rehearse(`version = 3\n${proxies}`, reloads);
    await rehearse('version = 3\n[kernel]\nthreads = "lean"\n', 0);
    // Of threads that ended while they wrote.
    for (const name of readdirSync(imagesDir)) if (/\.code\.\d/.test(name)) rmSync(join(imagesDir, name));
    writeFileSync(mark, '');
  } catch (error) {
    console.error(`prebuilt: not rehearsed, so a reload will hold calls for longer: ${(error as Error).message}`);
  }
}

async function rehearse(config: string, times: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-rehearsal-'));
  const address = join(dir, 'troupe.sock');
  const file = join(dir, 'config.toml');
  writeFileSync(file, config);
  const child = spawn(
    join(checkout, 'kernel/trouped'),
    ['--config', file, '--address', address, '--root', join(dir, 'root'), '--state', join(dir, 'state')],
    // A thread of a pool that waits in Atomics.wait would never come to keep anything.
    { env: { ...process.env, TROUPE_REHEARSAL: '1', PISCINA_DISABLE_ATOMICS: '1' }, stdio: 'ignore' },
  );
  const brokenOff = () => {
    child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
    process.exit(1);
  };
  for (const signal of signals) process.once(signal, brokenOff);
  const client = new GrpcClient(address);
  try {
    await served(child, client);
    await callEverything(client);
    for (let round = 0; round < times; round++) {
      const kernel = typedClient(client, KernelDefinition);
      const { plugins } = await kernel.list({ ids: [] }, { timeoutMs: reloadMs });
      for (const { id } of plugins) await kernel.reload({ id, force: true }, { timeoutMs: reloadMs });
      await callEverything(client);
    }
  } finally {
    client.close();
    await ended(child);
    for (const signal of signals) process.off(signal, brokenOff);
    rmSync(dir, { recursive: true, force: true });
  }
}

async function served(child: ChildProcess, client: GrpcClient): Promise<void> {
  const broken = new AbortController();
  const died = once(child, 'exit', { signal: broken.signal }).then(([code, signal]) => {
    throw new Error(`the daemon ended with ${code ?? signal} before it served`);
  });
  try {
    await Promise.race([client.ready(startMs), died]);
  } finally {
    died.catch(() => {});
    broken.abort();
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  const late = new AbortController();
  void sleep(stopMs, undefined, { signal: late.signal }).then(
    () => child.kill('SIGKILL'),
    () => {},
  );
  await exit;
  late.abort();
}
