/**
 * `trouped --watch`, for development: a plugin is reloaded when a file of its changes. What a file belongs to is told by its folder, and by who imports it where it
 * lies in a folder that several share. An editor writes a file in several steps, so a change is acted on when all has been quiet for a moment.
 */
import { type FSWatcher, statSync, watch } from 'node:fs';
import { join, sep } from 'node:path';
import type { Logger } from '../log.ts';
import { Failure } from '../sdk/failure.ts';
import { modulesOf } from '../supervisor/closure.ts';
import type { Redeployer } from './redeploy.ts';

const quietMs = 100;

export interface WatchedPlugin {
  readonly id: string;
  readonly dir: string;
}

export interface FolderWatchOptions {
  /** Directories to look at, with all below them. Asked again after each reload, since a config may name new ones. */
  readonly folders: () => readonly string[];
  readonly plugins: () => readonly WatchedPlugin[];
  readonly redeployer: Pick<Redeployer, 'reload' | 'reloadConfig'>;
  readonly logger: Logger;
}

export class FolderWatch {
  readonly #options: FolderWatchOptions;
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #changed = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #closed = false;
  #working: Promise<void> = Promise.resolve();

  constructor(options: FolderWatchOptions) {
    this.#options = options;
    this.#look();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
  }

  #look(): void {
    for (const folder of this.#options.folders()) {
      if (this.#watchers.has(folder) || statSync(folder, { throwIfNoEntry: false })?.isDirectory() !== true) continue;
      const watcher = watch(folder, { recursive: true, persistent: false }, (_event, name) => {
        if (name !== null && matters(name)) this.#heard(join(folder, name));
      });
      watcher.on('error', (error) =>
        this.#options.logger.write('warn', 'folder is not watched', { folder, error: error.message }),
      );
      this.#watchers.set(folder, watcher);
    }
  }

  #heard(path: string): void {
    this.#changed.add(path);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const changed = [...this.#changed];
      this.#changed.clear();
      this.#working = this.#working.then(() => this.#act(changed));
    }, quietMs);
  }

  async #act(changed: readonly string[]): Promise<void> {
    const { plugins, redeployer, logger } = this.#options;
    const known = plugins();
    const concerned = known.filter(({ dir }) => {
      if (changed.some((path) => within(path, dir))) return true;
      const closure = modulesOf(join(dir, 'index.ts'));
      return changed.some((path) => closure.has(path));
    });
    const nobodys = changed.filter((path) => {
      return !known.some(({ dir }) => within(path, dir)) && /\/(plugin\.toml|index\.ts)$/.test(path);
    });
    for (const { id } of concerned) {
      if (this.#closed) return;
      try {
        const { outcome, reason, generation, totalMs } = await redeployer.reload(id, false);
        if (outcome === 'unchanged') continue;
        const fields = { id, outcome, generation, ms: Math.round(totalMs), ...(reason !== '' && { reason }) };
        logger.write(outcome === 'kept' ? 'error' : 'info', 'plugin changed on disk', fields);
      } catch (error) {
        logger.write('error', 'plugin changed on disk', { id, outcome: 'kept', reason: Failure.from(error).message });
      }
    }
    // A new plugin, or one that was left out and has been mended.
    if (nobodys.length > 0 && !this.#closed)
      await redeployer.reloadConfig(false).catch((error) => logger.write('error', String(error)));
    if (!this.#closed) this.#look();
  }
}

/** Tests, editors' own files and what a tool installed are no code of the plugin's. The name is relative to the folder that is watched. */
function matters(name: string): boolean {
  if (/(\.test\.ts|~|\.swp|\.tmp|(^|\/)\d+)$/.test(name)) return false;
  return !name.split(sep).some((part) => part.startsWith('.') || part === 'node_modules');
}

function within(path: string, dir: string): boolean {
  return path.startsWith(`${dir}${sep}`);
}
