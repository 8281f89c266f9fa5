/**
 * Debian's dockerd on a scratch root, as a client of the containerd API at some socket. It keeps its hands off the machine: no bridge, no firewall, no forwarding,
 * its own cgroup parent, its own state of the runtime.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Outcome, run, type RunOptions } from './command.ts';
import { ForeignDaemon } from './foreign-daemon.ts';

/** The client of the same package: a machine may have another one, of another age, before it in its path. */
const client = '/usr/bin/docker';

export class Dockerd {
  readonly dir: string;
  readonly #daemon = new ForeignDaemon('dockerd', 'API listen on');
  /** Of the client: at this daemon, without what its user has configured. */
  readonly env: NodeJS.ProcessEnv;
  readonly #containerd: () => string;
  readonly #name: string;
  readonly #pidfile: string;

  /** What is missing for one, in words that go after "needs". Other series are not known to take all of these flags. */
  static lacking(): string | undefined {
    const versions = ['dockerd', client].map(
      (program) => spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout,
    );
    return versions.every((version) => /^Docker version 20\.10\./.test(version ?? ''))
      ? undefined
      : 'dockerd 20.10 (Debian 12: docker.io)';
  }

  /** `name`: its namespace and its cgroup, which no other on this machine may have. */
  constructor(dir: string, name: string, containerd: () => string) {
    this.dir = dir;
    this.#name = name;
    this.#containerd = containerd;
    this.#pidfile = join(dir, 'docker.pid');
    this.env = {
      DOCKER_HOST: `unix://${join(dir, 'docker.sock')}`,
      DOCKER_CONFIG: join(dir, 'client'),
      DOCKER_BUILDKIT: '0',
    };
  }

  get log(): readonly string[] {
    return this.#daemon.log;
  }

  /** Resolves when it serves; rejects with its log when it ends before. */
  async start(): Promise<this> {
    mkdirSync(this.dir, { recursive: true });
    const config = join(this.dir, 'daemon.json');
    // The one path of its own that no flag sets.
    writeFileSync(config, JSON.stringify({ 'deprecated-key-path': join(this.dir, 'key.json') }));
    const flags = {
      'config-file': config,
      containerd: this.#containerd(),
      'containerd-namespace': this.#name,
      'containerd-plugins-namespace': `${this.#name}-plugins`,
      'cgroup-parent': `/${this.#name}`,
      'data-root': join(this.dir, 'data'),
      'exec-root': join(this.dir, 'exec'),
      pidfile: this.#pidfile,
      host: this.env.DOCKER_HOST,
      'storage-driver': 'overlay2',
      bridge: 'none',
      iptables: false,
      ip6tables: false,
      'ip-forward': false,
      'ip-masq': false,
      'live-restore': true,
      debug: true,
    };
    const argv = Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`);
    await this.#daemon.start(argv);
    return this;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    await this.#daemon.stop(signal);
    // A killed one leaves it, and would not start while some other process has that pid.
    rmSync(this.#pidfile, { force: true });
  }

  docker(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
    return run(client, args, { ...options, env: { ...this.env, ...options.env } });
  }

  /** As `docker`, which must exit 0; what it printed, without the end of the line. */
  async must(...args: string[]): Promise<string> {
    const { code, signal, stdout, stderr } = await this.docker(args);
    if (code !== 0) throw new Error(`docker ${args.join(' ')}: ${code ?? signal}\n${stdout}${stderr}`);
    return stdout.trimEnd();
  }

  /** Resolves when a container has printed a line of just this. */
  async printed(container: string, line: string): Promise<void> {
    const logs = spawn(client, ['logs', '--follow', container], {
      env: { ...process.env, ...this.env },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const closed = once(logs, 'close');
    let found = false;
    for await (const each of createInterface({ input: logs.stdout })) {
      found = each === line;
      if (found) break;
    }
    logs.kill();
    await closed;
    if (!found) throw new Error(`container ${container} ended and did not print ${line}`);
  }

  /** Takes away all its containers. */
  async clear(): Promise<void> {
    const { stdout } = await this.docker(['ps', '-aq']);
    const ids = stdout.split('\n').filter((id) => id !== '');
    if (ids.length > 0) await this.docker(['rm', '-f', ...ids]);
  }

  /** Takes away what it leaves when it has stopped: a mount of its root on itself, which one that comes after a killed one keeps, and what lies elsewhere. */
  async removeTraces(): Promise<void> {
    await run('umount', [join(this.dir, 'data')]);
    await run('sh', ['-c', `rmdir /sys/fs/cgroup/*/${this.#name} /sys/fs/cgroup/${this.#name}`]);
    for (const dir of ['/run/docker/plugins', '/run/docker']) {
      try {
        rmdirSync(dir);
      } catch {
        // Somebody else's, or in use.
      }
    }
  }
}
