/** The main action: config → plan → boot → wait for a signal → stop in reverse. */
import { existsSync, mkdirSync, readFileSync, stat, writeFileSync } from 'node:fs';
import { getPriority, setPriority } from 'node:os';
import { join } from 'node:path';
import { KernelDefinition } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { daemonVersion, type GlobalFlags, installDir } from '../cli/index.ts';
import { prepare } from '../cli/plan.ts';
import { type Config, ProblemsError, renderProblem } from '../config/index.ts';
import { frontConfig } from '../front/config.ts';
import { createLogger, type Logger } from '../log.ts';
import { loadManifest, renderPlan } from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import { dump } from '../supervisor/dump.ts';
import { kernelService } from '../supervisor/kernel-service.ts';
import { Supervisor } from '../supervisor/supervisor.ts';
import { sdNotify } from '../sys/index.ts';
import { doubtOf } from './file-system.ts';
import { type Claim, claim } from './claim.ts';
import { Redeployer } from './redeploy.ts';

/** Nicenesses between the kernel's thread and those of plugins: nine times their share. */
const ahead = 10;

const launcher = join(installDir, 'kernel', 'trouped');

/** What a client's first Health check asks for; the front opens when these are up and does not wait for the others. */
const askedByHealth = [
  'grpc.health.v1.Health',
  'containerd.services.version.v1.Version',
  'containerd.services.images.v1.Images',
  'containerd.services.tasks.v1.Tasks',
];

/** Runs until a signal ends it. Resolves with the exit code. `watch`: plugins follow their folders. */
export async function runDaemon(flags: GlobalFlags, watch: boolean): Promise<number> {
  const prepared = prepare(flags);
  const { config, plan: planned, pluginConfigs: configs, problems, leftOut, warnings } = prepared;
  if (problems.length > 0 || !planned.ok) throw new ProblemsError(problems);
  const logger = createLogger(config.debug.level, config.debug.format === 'json' ? 'json' : 'text');
  for (const problem of warnings) logger.write('warn', renderProblem(problem));
  for (const { id, reason } of leftOut) logger.write('error', 'plugin is left out', { id, reason });

  process.umask(0o022);
  const claims: Claim[] = [claim(config.root, 'root', 0o700), claim(config.state, 'state', 0o711)];
  if (config.temp !== '') {
    mkdirSync(config.temp, { recursive: true, mode: 0o700 });
    process.env.TMPDIR = config.temp;
  }
  adjustProcess(config, logger);
  const niceness = goFirst();
  const { version, revision } = daemonVersion();
  logger.write('info', 'starting troupe', {
    version,
    revision,
    pid: process.pid,
    root: config.root,
    state: config.state,
  });
  const doubt = doubtOf(config.root);
  if (doubt !== undefined) logger.write('warn', `root ${doubt}`, {});
  logger.write('debug', renderPlan(planned));

  const front = loadManifest(join(installDir, 'kernel', 'front'));
  const supervisor = new Supervisor({
    plan: planned,
    configs: configs.values,
    threads: configs.threads,
    first: askedByHealth.flatMap((contract) => planned.routes.get(contract)?.map((route) => route.plugin) ?? []),
    front: { manifest: front, config: { ...frontConfig(config) } },
    daemon: {
      address: config.grpc.address,
      ttrpcAddress: config.ttrpc.address,
      publishBinary: launcher,
      root: config.root,
      state: config.state,
      version,
      revision,
      pid: process.pid,
    },
    timeouts: config.timeouts,
    streamProcessors: config.streamProcessors,
    niceness,
    unresponsiveMs: config.kernel.unresponsiveMs,
    killMs: config.kernel.killMs,
    logger,
    fatal: (reason) => endNow(logger, reason),
  });
  const redeployer = new Redeployer(
    { ...prepared, plan: planned },
    {
      flags,
      supervisor,
      logger,
      set(next) {
        logger.setLevel(next.debug.level);
        setOomScore(next, logger);
      },
    },
  );
  supervisor.serveKernel(KernelDefinition, kernelService(supervisor, redeployer));
  const ended = signals(supervisor, redeployer, logger);
  try {
    const booted = supervisor.boot();
    void supervisor.opened.then(() =>
      logger.write('info', 'serving...', { address: config.grpc.address, afterMs: Math.round(performance.now()) }),
    );
    await booted;
  } catch (error) {
    logger.write('fatal', Failure.from(error).message);
    await supervisor.stop();
    return 1;
  }
  logger.write('info', `troupe successfully booted in ${(performance.now() / 1000).toFixed(3)}s`);
  sdNotify('READY=1');

  const watching = watch ? await watchFolders(supervisor, redeployer, logger) : undefined;

  const signal = await ended;
  watching?.close();
  redeployer.close();
  logger.write('info', 'stopping', { signal });
  sdNotify('STOPPING=1');
  await supervisor.stop();
  for (const each of claims) each.release();
  return 0;
}

/** `oom_score` and `cgroup.path`, as containerd. What the system refuses is said and lived with: the daemon works without. */
function adjustProcess(config: Config, logger: Logger): void {
  if (config.oomScore !== 0) setOomScore(config, logger);
  if (config.cgroup.path === '') return;
  for (const dir of cgroupDirs(config.cgroup.path)) {
    mkdirSync(dir, { recursive: true });
    tryToWrite(join(dir, 'cgroup.procs'), String(process.pid), 'cgroup.path', logger);
  }
}

/**
 * The kernel's thread goes first: it computes next to nothing, and on a machine that is busy everybody's reloads, deaths and restarts wait for its turn. Threads that it
 * makes inherit that while they start, and go back to where the others are before they run any plugin's code (sdk/worker.ts). Takes a privilege; without it nothing is lost.
 *
 * @returns where the others are
 */
function goFirst(): number {
  const niceness = getPriority(0);
  // libuv starts its pool, which is everybody's, at the first job: here it is still as the others.
  stat('/', () => {});
  try {
    setPriority(0, Math.max(-20, niceness - ahead));
  } catch {
    // EACCES: not root, or a sandbox that keeps CAP_SYS_NICE.
  }
  return niceness;
}

function setOomScore(config: Config, logger: Logger): void {
  tryToWrite('/proc/self/oom_score_adj', String(config.oomScore), 'oom_score', logger);
}

function tryToWrite(file: string, value: string, what: string, logger: Logger): void {
  try {
    writeFileSync(file, value);
  } catch (error) {
    logger.write('warn', `${what} could not be set`, { file, error: (error as Error).message });
  }
}

/** The cgroup in the unified hierarchy, or in each of the version 1 controllers (cgroups(7)). */
function cgroupDirs(path: string): string[] {
  const base = '/sys/fs/cgroup';
  if (existsSync(join(base, 'cgroup.controllers'))) return [join(base, path)];
  return readFileSync('/proc/self/cgroup', 'utf8')
    .split('\n')
    .map((line) => line.split(':')[1] ?? '')
    .filter((controllers) => controllers !== '' && !controllers.startsWith('name='))
    .map((controllers) => join(base, controllers, path))
    .filter((dir) => existsSync(join(dir, '..')));
}

/** A worker that cannot be ended, or a disk that does not keep what it promised: only a signal surely ends the process. Containers live on in their shims. */
function endNow(logger: Logger, reason: string): void {
  logger.write('fatal', 'the daemon ends itself', { reason });
  // What was refused for it is told to its callers first.
  setTimeout(() => process.kill(process.pid, 'SIGKILL'), 250);
}

async function watchFolders(supervisor: Supervisor, redeployer: Redeployer, logger: Logger) {
  const { FolderWatch } = await import('./folder-watch.ts');
  const builtin = join(installDir, 'plugins');
  logger.write('info', 'plugins are reloaded when their files change');
  return new FolderWatch({
    folders: () => [builtin, ...redeployer.deployed.config.kernel.pluginDirs],
    plugins: () => supervisor.units.map(({ id, manifest }) => ({ id, dir: manifest.dir })),
    redeployer,
    logger,
  });
}

function signals(supervisor: Supervisor, redeployer: Redeployer, logger: Logger): Promise<string> {
  process.on('SIGPIPE', () => {});
  // containerd dies of it.
  process.on('SIGHUP', () => {
    sdNotify('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
    void redeployer
      .reloadConfig(false)
      .catch((error: unknown) => logger.write('error', 'config is not reloaded', { problem: String(error) }))
      .finally(() => sdNotify('READY=1'));
  });
  process.on('SIGUSR1', () => {
    void dump(supervisor).then((text) =>
      logger.write('info', `=== BEGIN thread dump ===\n${text}\n=== END thread dump ===`),
    );
  });
  return new Promise((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) {
      process.on(name, () => resolve(name));
    }
  });
}
