/** The command line against a daemon of a test. */
import { fileURLToPath } from 'node:url';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import type { Client, ServiceDefinition } from '../../kernel/sdk/plugin.ts';
import { type Outcome, run } from './command.ts';
import type { Daemon } from './daemon.ts';

export const launcher = fileURLToPath(new URL('../../kernel/trouped', import.meta.url));

export function trouped(daemon: Daemon, ...args: string[]): Promise<Outcome> {
  return run(launcher, ['--address', daemon.address, ...args], { cwd: daemon.dir, timeoutMs: 200_000 });
}

/** As `trouped plugins ls --json` prints it. */
export interface ListedPlugin {
  readonly id: string;
  readonly state: string;
  readonly reason: string;
  readonly generation: number;
  readonly restarts: number;
  readonly folder: string;
}

export async function plugins(daemon: Daemon): Promise<ListedPlugin[]> {
  const { stdout, stderr } = await trouped(daemon, 'plugins', 'ls', '--json');
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as ListedPlugin[];
}

export interface Closing {
  teardown(fn: () => void): void;
}

/** A client of a contract on the daemon's socket, closed when the test ends. */
export function useClient<D extends ServiceDefinition>(
  t: Closing,
  daemon: Daemon,
  definition: D,
  namespace = 'default',
): Client<D> {
  const client = new GrpcClient(daemon.address, { namespace });
  t.teardown(() => client.close());
  return typedClient(client, definition);
}
