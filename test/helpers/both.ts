/**
 * One script of shell lines against our daemon and against a containerd beside it, and what each of them showed.
 *
 *     const both = useBoth(test);                       // one daemon and one containerd for the tests of this file
 *     test.serial('…', async (t) => {
 *       const { ours, theirs } = await both(t, `
 *         ctr namespaces create $NS.a
 *         ctr namespaces ls -q | grep a
 *       `);
 *       t.is(ours, theirs);
 *     });
 *
 * Each line is a command of its own for `sh`, with `ctr` at its daemon (CONTAINERD_ADDRESS) in the test's namespace (CONTAINERD_NAMESPACE, also $NS), in a
 * directory of its own ($OUT), with the files that both read in $DIR, and the store in $ROOT ($BLOBS and $INGEST of the content). The transcript has the line, what it printed,
 * the errors last, and how it ended. Times, ids that are drawn by chance, and paths of either are replaced, so that equal is equal.
 * TROUPE_TRANSCRIPTS names a directory where they are kept, to read.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { ExecutionContext, TestFn } from 'ava';
import { run } from './command.ts';
import { Daemon } from './daemon.ts';
import { Peer } from './peer.ts';
import { mountsBelow, scratchBase } from './scratch.ts';

export interface Both {
  (t: ExecutionContext, script: string, options?: ScriptOptions): Promise<Transcripts>;
  /** A directory that both sides read, there for all tests of the file. */
  readonly fixtures: string;
  readonly daemon: Daemon;
  /** Sockets of those that run, ours first; one where no containerd is installed. After the hooks before the tests. */
  readonly addresses: () => readonly string[];
}

export interface ScriptOptions {
  /** Variables of the script, by side. */
  readonly env?: (side: 'ours' | 'theirs') => Readonly<Record<string, string>>;
  /** More to replace, after all else. */
  readonly plain?: (text: string, side: 'ours' | 'theirs') => string;
}

export interface Transcripts {
  readonly ours: string;
  /** Ours again where no containerd is installed, which the test's log says. */
  readonly theirs: string;
}

interface Side {
  readonly name: 'ours' | 'theirs';
  readonly dir: string;
  readonly root: string;
  readonly address: string;
}

/** Collection when it is asked for, and hardly ever else: scripts look at what is there between two commands. containerd's runs in intervals once it ran. */
const collectOnDemand = (plugin: string): string => `[plugins."${plugin}"]
mutation_threshold = 0
startup_delay = "24h"
pause_threshold = 0.0000001
`;

export function useBoth(test: TestFn): Both {
  const dir = mkdtempSync(join(scratchBase(), 'troupe-both-'));
  const fixtures = join(dir, 'fixtures');
  mkdirSync(fixtures);
  const daemon = new Daemon(join(dir, 'ours'), {
    config: `version = 3\n${collectOnDemand('troupe.records.v1.records')}`,
  });
  const peer = new Peer(join(dir, 'theirs'));
  let compared = false;

  test.before(async (t) => {
    t.timeout(120_000);
    compared = await Peer.available();
    await Promise.all([daemon.start(), compared && peer.start(collectOnDemand('io.containerd.gc.v1.scheduler'))]);
  });
  test.after.always(async (t) => {
    const { code, signal } = await daemon.stop();
    await peer.stop();
    const errors = daemon.log.filter((line) => /level=(?:error|fatal)/.test(line));
    const mounts = mountsBelow(dir);
    if (mounts.length > 0) await run('umount', ['-l', ...mounts.toReversed()]);
    rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
    t.is(code ?? signal, 0, daemon.log.slice(-20).join('\n'));
    t.deepEqual(errors, [], 'the daemon logged errors');
    t.deepEqual(mounts, [], 'still mounted');
  });
  // Without a test to run there are no hooks.
  process.once('exit', () => {
    if (mountsBelow(dir).length === 0) rmSync(dir, { recursive: true, force: true });
  });

  let count = 0;
  const both = async (t: ExecutionContext, script: string, options: ScriptOptions = {}): Promise<Transcripts> => {
    t.timeout(120_000);
    count += 1;
    const namespace = `n${count}`;
    const sides: Side[] = [{ name: 'ours', dir: daemon.dir, root: daemon.root, address: daemon.address }];
    if (compared) sides.push({ name: 'theirs', dir: peer.dir, root: peer.root, address: peer.address });
    else t.log('not compared: that takes root and a containerd 1.6');
    const [ours, theirs] = await Promise.all(
      sides.map((side) => transcript(side, namespace, fixtures, script, options)),
    );
    return { ours: ours!, theirs: theirs ?? ours! };
  };
  const addresses = (): string[] => (compared ? [daemon.address, peer.address] : [daemon.address]);
  return Object.assign(both, { fixtures, daemon, addresses });
}

async function transcript(
  side: Side,
  namespace: string,
  fixtures: string,
  script: string,
  options: ScriptOptions,
): Promise<string> {
  const out = join(side.dir, `out-${namespace}`);
  mkdirSync(out, { recursive: true });
  const content = join(side.root, 'io.containerd.content.v1.content');
  const env = {
    CONTAINERD_ADDRESS: side.address,
    CONTAINERD_NAMESPACE: namespace,
    NS: namespace,
    OUT: out,
    DIR: fixtures,
    ROOT: side.root,
    BLOBS: join(content, 'blobs/sha256'),
    INGEST: join(content, 'ingest'),
    SNAPSHOTS: join(side.root, 'io.containerd.snapshotter.v1.overlayfs/snapshots'),
    LC_ALL: 'C',
    TZ: 'UTC',
    ...options.env?.(side.name),
  };
  let text = '';
  for (const line of commands(script)) {
    // What hangs is ended with all that it started, or its output would never end.
    const { code, signal, stdout, stderr } = await run('timeout', ['-s', 'KILL', '60', 'sh', '-c', line], {
      cwd: out,
      env,
      timeoutMs: 90_000,
    });
    text += `$ ${line}\n${ended(stdout)}${ended(stderr)}${code === 0 ? '' : `exit ${code ?? signal}\n`}`;
  }
  text = (options.plain ?? ((same) => same))(plain(text, side, out, fixtures), side.name);
  const keep = process.env.TROUPE_TRANSCRIPTS;
  if (keep !== undefined) writeFileSync(join(keep, `${basename(side.dir)}-${namespace}`), text);
  return text;
}

/** One a line; a line that ends in a backslash goes on. */
function commands(script: string): string[] {
  return script
    .replace(/\\\n\s*/g, '')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
}

const ended = (text: string): string => (text === '' || text.endsWith('\n') ? text : `${text}\n`);

function plain(text: string, side: Side, out: string, fixtures: string): string {
  const numbers = new Map<string, number>();
  // Some of containerd's methods give errors no code: they come as Unknown, which their text then says after what they are.
  const coded =
    side.name === 'ours' ? text : text.replace(/(: (?:failed precondition|invalid argument)): unknown(?="?$)/gm, '$1');
  return (
    coded
      .replaceAll(out, 'OUT')
      .replaceAll(fixtures, 'DIR')
      .replaceAll(side.root, 'ROOT')
      .replaceAll(side.address, 'SOCKET')
      .replaceAll(basename(side.address), 'SOCKET')
      // Directories of snapshots are numbered as they come: which is which still shows.
      .replace(/(?<=snapshots\/)\d+/g, (id) => {
        if (!numbers.has(id)) numbers.set(id, numbers.size + 1);
        return String(numbers.get(id));
      })
      .replace(/(?<=\bn\d+(?:-\w+)?\/)\d+(?=\/)/g, 'N')
      .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d| \+0000 UTC)/g, 'TIME')
      .replace(/\b\d{6,9}-[\w-]{4}(?= sha256:)/g, 'RANDOM')
      .replace(/\b\d{3,9}-[\w-]{4}(?=\s|$)/gm, 'LEASE')
      .replace(/(?:\d+|Less than a|About an?|an?) (?:seconds?|minutes?|hours?)(?: ago)?/g, 'AGE')
      .replace(/elapsed: .*$/gm, 'elapsed: …')
      // Columns are as wide as times were long.
      .replace(/(?<=\S)(?: {2,}|[ \t]*\t[ \t]*)(?=\S)/g, '  ')
      .replace(/[ \t]+$/gm, '')
      // ctr walks maps of labels in the order of chance.
      .replace(/(?<=^|\s)[^\s,=]+=\S*,[^\s,=]+=\S*(?=\s|$)/gm, (labels) =>
        labels
          .split(/,(?=[^\s,=]+=)/)
          .sort()
          .join(','),
      )
  );
}
