/**
 * The same commands against a daemon of ours and, where a containerd 1.6 is installed, against one of those: what they print must be the same, names that
 * differ from run to run aside. One pair serves a file of tests; each test has a namespace of its own on each side, since runc's state and cgroups are one
 * for the machine.
 */
import { accessSync, chmodSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import test, { type ExecutionContext, type Implementation } from 'ava';
import { run } from './command.ts';
import { Daemon } from './daemon.ts';
import { busyboxLayer, imageLayout, upperLayer, writeOciArchive } from './image.ts';
import { Peer } from './peer.ts';
import { mountsBelow, scratchBase, useScratch } from './scratch.ts';
import { shimsOf } from './shims.ts';
import { imageName, type Server, Side } from './side.ts';

/** Collection when it is asked for, and at no other time: what is left over for it is the same on both sides then. */
const collectOnDemand = (plugin: string): string => `[plugins."${plugin}"]
mutation_threshold = 0
startup_delay = "24h"
`;

export type Script = (side: Side) => Promise<void>;

export interface Pair {
  /** A test, skipped with its reason where no container can run. */
  test(title: string, body: Implementation<[]>): void;
  /** Runs a script on both sides at once. What they say must be the same; answers it. */
  both(t: ExecutionContext, script: Script): Promise<string>;
  /** Runs a script on our side alone, where the other's answer is none to aim at. */
  ours(t: ExecutionContext, script: Script): Promise<string>;
  /** Our daemon alone. */
  readonly daemon: Daemon;
}

/** Declares the hooks of a file: the pair starts before its tests and ends, leaving nothing, after them. `config`: tables that both sides take. */
export function usePair(config = ''): Pair {
  const reason = whyNoContainers();
  if (reason !== undefined) {
    return {
      test: (title, body) => test.serial.skip(`${title} (skipped: ${reason})`, body),
      both: () => Promise.reject(new Error(reason)),
      ours: () => Promise.reject(new Error(reason)),
      get daemon(): Daemon {
        throw new Error(reason);
      },
    };
  }
  const dir = mkdtempSync(join(scratchBase(), 'troupe-pair-'));
  // A user namespace's root must get to its bundle.
  chmodSync(dir, 0o711);
  const daemon = new Daemon(join(dir, 'troupe'), {
    config: `version = 3\n${collectOnDemand('troupe.records.v1.records')}${config}`,
  });
  const archive = join(dir, 'image.tar');
  const servers: { readonly name: Side['name']; readonly server: Server }[] = [{ name: 'troupe', server: daemon }];
  let count = 0;

  test.before(async () => {
    writeOciArchive(archive, imageLayout({ layers: [busyboxLayer, upperLayer], compression: 'none' }), imageName);
    const peer = (await Peer.available()) ? new Peer(join(dir, 'containerd')) : undefined;
    if (peer !== undefined) servers.push({ name: 'containerd', server: peer });
    await Promise.all([daemon.start(), peer?.start(`${collectOnDemand('io.containerd.gc.v1.scheduler')}${config}`)]);
  });

  test.after.always('nothing is left behind', async (t) => {
    const left: string[] = [];
    for (const { name, server } of servers) {
      if (server.pid !== 0) await server.stop();
      const shims = shimsOf(server.address);
      for (const pid of shims) process.kill(pid, 'SIGKILL');
      if (name !== 'troupe') continue;
      left.push(...shims.map((pid) => `shim ${pid}`));
      if (existsSync(server.address)) left.push('the socket');
    }
    const mounts = mountsBelow(dir);
    left.push(...mounts.filter((mount) => mount.startsWith(daemon.dir)));
    for (const mount of mounts.toReversed()) await run('umount', ['-l', mount]);
    rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
    t.deepEqual(left, []);
    // A daemon says at this level what it cannot cope with; nothing that clients do may bring that about. Shims may say it too, of clients.
    const errors = daemon.log.filter((line) => line.includes('level=error') && !line.includes('msg=shim '));
    t.deepEqual(errors, []);
  });

  return {
    daemon,
    test: (title, body) => test.serial(title, body),
    async both(t, script) {
      const [ours, theirs] = await play(t, servers, script);
      if (theirs === undefined) t.log('not compared: no containerd 1.6 is installed');
      else t.is(ours, theirs);
      return ours!;
    },
    async ours(t, script) {
      const [said] = await play(t, servers.slice(0, 1), script);
      return said!;
    },
  };

  async function play(t: ExecutionContext, on: typeof servers, script: Script): Promise<string[]> {
    t.timeout(300_000);
    count += 1;
    const ends = await Promise.allSettled(
      on.map(async ({ name, server }) => {
        const side = new Side(name, server, `${name[0]}${process.pid}-${count}`, useScratch(t, name), archive);
        try {
          await script(side);
          return side.transcript();
        } catch (error) {
          t.log(`${name} so far:\n${side.transcript()}`);
          if (name === 'troupe')
            t.log(
              daemon.log
                .filter((line) => !line.includes('level=debug'))
                .slice(-20)
                .join('\n'),
            );
          throw error;
        } finally {
          await side.clear();
        }
      }),
    );
    return ends.map((end) => {
      if (end.status === 'rejected') throw end.reason;
      return end.value;
    });
  }
}

/** Why real containers cannot run here, or undefined when they can. */
export function whyNoContainers(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const path = (process.env.PATH ?? '').split(delimiter);
  for (const program of ['ctr', 'containerd-shim-runc-v2', 'runc', 'busybox', 'script']) {
    if (!path.some((dir) => existsSync(join(dir, program)))) return `${program} is not installed`;
  }
  try {
    accessSync('/sys/fs/cgroup', constants.W_OK);
  } catch {
    return 'cgroups are not writable';
  }
  return undefined;
}
