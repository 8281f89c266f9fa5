/**
 * The same commands against a daemon of ours and, where a containerd 1.6 is installed, against one of those: what they print must be the same, names that
 * differ from run to run aside. One pair serves a file of tests; each test has a namespace of its own on each side, since runc's state and cgroups are one
 * for the machine.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext, type Implementation } from 'ava';
import { type Outcome, run, type RunOptions } from './command.ts';
import { Daemon } from './daemon.ts';
import { busyboxLayer, imageLayout, upperLayer, writeOciArchive } from './image.ts';
import { mountsBelow, scratchBase, useScratch } from './scratch.ts';

/** What a side's server is, whoever made it. */
export interface Server {
  readonly address: string;
  readonly root: string;
  readonly state: string;
  readonly pid: number;
  start(): Promise<unknown>;
  stop(signal?: NodeJS.Signals): Promise<unknown>;
}

/** Collection when it is asked for, and at no other time: what is left over for it is the same on both sides then. */
const collectOnDemand = (plugin: string): string => `[plugins."${plugin}"]
mutation_threshold = 0
startup_delay = "24h"
`;

/** A containerd on a scratch root, without what a machine would have to give it. */
export class Containerd implements Server {
  readonly dir: string;
  readonly root: string;
  readonly state: string;
  readonly address: string;
  readonly log: string[] = [];
  readonly #config: string;
  #child: ChildProcess | undefined;
  #exit: Promise<unknown> = Promise.resolve();

  constructor(dir: string, config = '') {
    this.dir = dir;
    this.root = join(dir, 'root');
    this.state = join(dir, 'state');
    this.address = join(dir, 'ctrd.sock');
    this.#config = config;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  async start(): Promise<this> {
    mkdirSync(this.dir, { recursive: true });
    const config = join(this.dir, 'config.toml');
    writeFileSync(
      config,
      `version = 2
root = ${JSON.stringify(this.root)}
state = ${JSON.stringify(this.state)}
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = ${JSON.stringify(this.address)}
[ttrpc]
address = ${JSON.stringify(`${this.address}.ttrpc`)}
[plugins."io.containerd.internal.v1.opt"]
path = ${JSON.stringify(join(this.dir, 'opt'))}
${collectOnDemand('io.containerd.gc.v1.scheduler')}${this.#config}`,
    );
    const child = spawn('containerd', ['--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    this.#exit = once(child, 'exit');
    const ready = Promise.withResolvers<void>();
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.log.push(line);
      if (line.includes('successfully booted')) ready.resolve();
    });
    void this.#exit.then(() => ready.reject(new Error(`containerd ended:\n${this.log.slice(-20).join('\n')}`)));
    await ready.promise;
    return this;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    this.#child?.kill(signal);
    await this.#exit;
    this.#child = undefined;
  }
}

/** What to say once something was printed: text, the end of the input (`end`), or what else is to be done then. */
export interface Typed {
  readonly after: RegExp;
  readonly input: string | ((child: ChildProcess) => void);
}

export const imageName = 'docker.io/library/box:1';

/** What `ctr events` prints. */
export class Feed {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;
  #more = Promise.withResolvers<void>();

  constructor(address: string, filters: readonly string[]) {
    this.#child = spawn('ctr', ['--address', address, 'events', ...filters], { stdio: ['ignore', 'pipe', 'pipe'] });
    let complaint = '';
    this.#child.stderr?.on('data', (chunk) => {
      complaint += chunk;
    });
    this.#ended = once(this.#child, 'close').then(([code]) => {
      throw new Error(`ctr events ended with ${code}: ${complaint}\n${this.lines.join('\n')}`);
    });
    this.#ended.catch(() => {});
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.lines.push(line);
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    });
  }

  /** The first line, past or future, that has `wanted` in it. Rejects when there is none in a minute. */
  async until(wanted: RegExp): Promise<string> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      late.reject(new Error(`no event came that looks like ${wanted}, but\n${this.lines.join('\n')}`));
    }, 60_000);
    late.promise.catch(() => {});
    try {
      for (;;) {
        const line = this.lines.find((each) => wanted.test(each));
        if (line !== undefined) return line;
        await Promise.race([this.#more.promise, this.#ended, late.promise]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Topics of what was heard so far. */
  topics(wanted = /./): string[] {
    return this.lines.filter((line) => wanted.test(line)).map((line) => / UTC \S+ (\S+) /.exec(line)?.[1] ?? line);
  }

  async close(): Promise<void> {
    this.#child.kill();
    await this.#ended.catch(() => {});
  }
}

export interface SideOptions extends RunOptions {
  /** Default the test's. */
  readonly namespace?: string;
}

/** One server in one test. */
export class Side {
  readonly name: 'troupe' | 'containerd';
  readonly server: Server;
  readonly namespace: string;
  /** Empty at first. */
  readonly dir: string;
  readonly #archive: string;
  readonly #hidden = new Map<string, string>();
  readonly #feeds: Feed[] = [];
  #transcript = '';
  #execs = 0;

  constructor(name: Side['name'], server: Server, namespace: string, dir: string, archive: string) {
    this.name = name;
    this.server = server;
    this.namespace = namespace;
    this.dir = dir;
    this.#archive = archive;
  }

  /** `ctr` in the test's namespace. */
  ctr(args: readonly string[], options: SideOptions = {}): Promise<Outcome> {
    return run('ctr', this.#argv(args, options.namespace), options);
  }

  /** As `ctr`, which must exit 0. */
  async must(args: readonly string[], options: SideOptions = {}): Promise<string> {
    const { code, signal, stdout, stderr } = await this.ctr(args, options);
    if (code !== 0) throw new Error(`ctr ${args.join(' ')}: ${code ?? signal}\n${stdout}${stderr}`);
    return stdout;
  }

  /** `ctr`, and all it says goes into the transcript. */
  async show(args: readonly string[], options: SideOptions = {}): Promise<Outcome> {
    const outcome = await this.ctr(args, options);
    this.note(shown(args, outcome));
    return outcome;
  }

  /** `ctr` at a terminal of 80 columns and 24 lines; what it prints goes into the transcript. */
  terminal(args: readonly string[], typed: readonly Typed[] = []): Promise<string> {
    const line = ['ctr', ...this.#argv(args)].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
    const child = spawn('script', ['-qec', `stty cols 80 rows 24; exec ${line}`, '/dev/null'], { stdio: 'pipe' });
    return this.#converse(args, child, typed);
  }

  /** `ctr` whose input comes bit by bit; what it prints goes into the transcript, both streams as one. */
  talk(args: readonly string[], typed: readonly Typed[]): Promise<string> {
    return this.#converse(args, this.spawn(args), typed);
  }

  /**
   * `ctr tasks exec` of a line for the shell. It ends when what it printed was heard: a ctr of this age may give up on a stream that it has not opened by the
   * time the process ends, and then shows nothing of it.
   */
  exec(id: string, flags: readonly string[], line: string): Promise<string> {
    this.#execs += 1;
    const args = [
      '--exec-id',
      `line${this.#execs}`,
      ...flags,
      id,
      'sh',
      '-c',
      `${line}; e=$?; echo heard; read x; exit $e`,
    ];
    return this.talk(['tasks', 'exec', ...args], [{ after: /heard\n/, input: '\n' }]);
  }

  async #converse(args: readonly string[], child: ChildProcess, typed: readonly Typed[]): Promise<string> {
    const rest = [...typed];
    let output = '';
    const limit = setTimeout(() => child.kill('SIGKILL'), 60_000);
    const hear = (text: string): void => {
      // A terminal in a terminal ends lines twice over.
      output += text.replaceAll('\r', '');
      while (rest.length > 0 && rest[0]!.after.test(output)) {
        const { input } = rest.shift()!;
        if (input === 'end') child.stdin!.end();
        else if (typeof input === 'string') child.stdin!.write(input);
        else input(child);
      }
    };
    child.stdin!.on('error', () => {});
    for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', hear);
    hear('');
    const [code, signal] = await once(child, 'close');
    clearTimeout(limit);
    // ctr sends the size of its terminal some time after the start, and says so when the process has ended by then.
    output = output.replace(/^.*resize pty.*\n/gm, '');
    this.note(shown(args, { code, signal, stdout: output, stderr: '' }));
    return output;
  }

  /** A `ctr` that goes on beside the test. */
  spawn(args: readonly string[]): ChildProcess {
    return spawn('ctr', this.#argv(args), { stdio: ['pipe', 'pipe', 'pipe'] });
  }

  note(text: string): void {
    this.#transcript += text.endsWith('\n') ? text : `${text}\n`;
  }

  /** A value that is this run's alone, and the name that stands for it in the transcript. */
  hide(value: string | number, name: string): void {
    this.#hidden.set(`${value}`, name);
  }

  /** Name of the test's image, which is there and unpacked after the first call. */
  async image(archive = this.#archive): Promise<string> {
    await this.must(['images', 'import', archive]);
    return imageName;
  }

  /** A directory with busybox in it. */
  rootfs(name = 'rootfs'): string {
    const dir = join(this.dir, name);
    mkdirSync(dir);
    busyboxLayer(dir);
    return dir;
  }

  /** A container that runs until it is killed; answers the pid of its first process. */
  async running(
    id: string,
    args: readonly string[] = ['sleep', '1000'],
    flags: readonly string[] = [],
  ): Promise<number> {
    const file = join(this.dir, `${id}.pid`);
    await this.must(['run', '-d', '--pid-file', file, ...flags, imageName, id, ...args]);
    const pid = Number(readFileSync(file, 'utf8'));
    this.hide(pid, `PID-OF-${id}`);
    return pid;
  }

  /** Hears of everything that happens from now on. Filters are alternatives; one for the mark by which it is known to stand is added. */
  async events(...filters: string[]): Promise<Feed> {
    const feed = new Feed(
      this.server.address,
      filters.length === 0 ? [] : [...filters, `topic=="/namespaces/update",namespace==${this.namespace}`],
    );
    this.#feeds.push(feed);
    const mark = new RegExp(` ${this.namespace} /namespaces/update .*"mark"`);
    await this.ctr(['namespaces', 'create', this.namespace]);
    const heard = feed.until(mark);
    for (let tries = 0; ; tries += 1) {
      await this.must(['namespaces', 'label', this.namespace, `mark=${tries}`]);
      if (await Promise.race([heard.then(() => true), pause(20).then(() => false)])) return feed;
    }
  }

  /** Has garbage collected, and waits for that. */
  async collect(): Promise<void> {
    await this.must(['leases', 'create', '--id', 'collect']);
    await this.must(['leases', 'rm', '--sync', 'collect']);
  }

  /** Where the server keeps the bundle of a task. */
  bundle(id: string): string {
    return join(this.server.state, 'io.containerd.runtime.v2.task', this.namespace, id);
  }

  /** Processes of shims that were started for a container. */
  shims(id: string): number[] {
    return shimsOf(this.server.address, this.namespace, id);
  }

  /** What was said, with names for what differs from run to run, spaces made one. */
  transcript(): string {
    let text = this.#transcript;
    for (const [value, name] of [...this.#hidden].sort(([a], [b]) => b.length - a.length)) {
      text = text.replace(
        new RegExp(`(?<![\\w.])${value.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')}(?![\\w])`, 'g'),
        name,
      );
    }
    return (
      text
        .replaceAll(this.namespace, 'NAMESPACE')
        .replaceAll(this.dir, 'DIR')
        .replaceAll(this.server.address, 'ADDRESS')
        .replaceAll(this.server.state, 'STATE')
        .replaceAll(this.server.root, 'ROOT')
        .replace(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:[\d.]+ ?(?:Z|[+-]\d\d:?\d\d)?(?: UTC)?/g, 'TIME')
        .replace(/"pid":[1-9]\d*/g, '"pid":PID')
        .replace(/\/run\/containerd\/fifo\/\d+/g, 'FIFO')
        .replace(/(?<=\/containerd-mount)\d+/g, 'N')
        .replace(/x{77,}/g, 'LONG')
        // ctr walks maps of labels in the order of chance.
        .replace(/^[^\s,=]+=[^\s,]*(?:,[^\s,=]+=[^\s,]*)+$/gm, (labels) => labels.split(',').sort().join(','))
        .replace(/[ \t]+/g, ' ')
        .replace(/ $/gm, '')
    );
  }

  /** Ends and removes all that the test left in its namespace. */
  async clear(): Promise<void> {
    for (const feed of this.#feeds) await feed.close();
    const list = async (noun: string): Promise<string[]> =>
      (await this.ctr([noun, 'ls', '-q'])).stdout.split('\n').filter((line) => line !== '');
    for (const id of await list('tasks')) {
      await this.ctr(['tasks', 'resume', id]);
      await this.ctr(['tasks', 'rm', '-f', id]);
    }
    for (const id of await list('containers')) await this.ctr(['containers', 'rm', id]);
    for (const name of await list('images')) await this.ctr(['images', 'rm', name]);
    // runc and the shim leave what they made above a container; the machine's, so not in the scratch directory.
    await run('sh', ['-c', `rmdir /run/containerd/runc/${this.namespace} /sys/fs/cgroup/*/${this.namespace}`]);
  }

  #argv(args: readonly string[], namespace = this.namespace): string[] {
    return ['--address', this.server.address, '--namespace', namespace, ...args];
  }
}

function shown(args: readonly string[], { code, signal, stdout, stderr }: Outcome): string {
  const text = `$ ctr ${args.join(' ')}\n${stdout}`;
  return `${text.endsWith('\n') ? text : `${text}⏎\n`}${stderr}exit ${code ?? signal}\n`;
}

function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Shims of a server, of one of its containers when that is named. */
export function shimsOf(address: string, namespace?: string, id?: string): number[] {
  const found: number[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      if (!argv[0]?.includes('shim') || !argv.includes(address)) continue;
      if (namespace !== undefined && argv[argv.indexOf('-namespace') + 1] !== namespace) continue;
      if (id === undefined || argv[argv.indexOf('-id') + 1] === id) found.push(Number(pid));
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

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
    const version = await run('containerd', ['--version']).catch(() => undefined);
    if (version !== undefined && / v?1\.6\./.test(version.stdout)) {
      servers.push({ name: 'containerd', server: new Containerd(join(dir, 'containerd'), config) });
    }
    await Promise.all(servers.map(({ server }) => server.start()));
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
