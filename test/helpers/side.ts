/** One server in one test: `ctr` at it in a namespace of the test's own, and a transcript of what was shown, with names for what differs from run to run. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Outcome, run, type RunOptions } from './command.ts';
import { Feed } from './feed.ts';
import { busyboxLayer } from './image.ts';
import { shimsOf } from './shims.ts';

/** What a side's server is, whoever made it. */
export interface Server {
  readonly address: string;
  readonly root: string;
  readonly state: string;
  readonly pid: number;
  start(): Promise<unknown>;
  stop(signal?: NodeJS.Signals): Promise<unknown>;
}

export const imageName = 'docker.io/library/box:1';

/** What to say once something was printed: text, the end of the input (`end`), or what else is to be done then. */
export interface Typed {
  readonly after: RegExp;
  readonly input: string | ((child: ChildProcess) => void);
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

  /** Shows what there is of containers, tasks and snapshots. */
  async showLeft(): Promise<void> {
    for (const noun of ['containers', 'tasks', 'snapshots']) await this.show([noun, 'ls']);
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
