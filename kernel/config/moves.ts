/**
 * The three layouts of containerd's file that are in use, brought to one. Version 3 is that one, with the listeners as sections of their own: 2
 * differs by names of plugins and the tables of the CRI plugin, 4 by having the listeners among the plugins.
 *
 * Nothing is copied: a value goes from one path to another, and `locate` still finds the line it was written on.
 */
import { isTable, type TomlDocument, type TomlTable } from './toml.ts';

type Path = readonly string[];

const cri = 'io.containerd.grpc.v1.cri';
const criImages = 'io.containerd.cri.v1.images';
const criRuntime = 'io.containerd.cri.v1.runtime';

/** Plugins that have another URI since version 3. */
export const renamedPlugins: Readonly<Record<string, string>> = {
  'io.containerd.internal.v1.restart': 'io.containerd.monitor.container.v1.restart',
  'io.containerd.monitor.v1.cgroups': 'io.containerd.monitor.task.v1.cgroups',
};

const toImages = [
  'registry',
  'max_concurrent_downloads',
  'image_pull_progress_timeout',
  'image_pull_with_sync_fs',
  'image_decryption',
  'stats_collect_period',
];
const toImagesFromContainerd = ['snapshotter', 'discard_unpacked_layers', 'disable_snapshot_annotations'];
const staysInCri = [
  'disable_tcp_service',
  'stream_server_address',
  'stream_server_port',
  'stream_idle_timeout',
  'enable_tls_streaming',
  'x509_key_pair_streaming',
];

/** Short names of version 1. */
const shortNames: Readonly<Record<string, string>> = {
  aufs: 'io.containerd.snapshotter.v1.aufs',
  bolt: 'io.containerd.metadata.v1.bolt',
  btrfs: 'io.containerd.snapshotter.v1.btrfs',
  cgroups: 'io.containerd.monitor.v1.cgroups',
  content: 'io.containerd.content.v1.content',
  cri,
  devmapper: 'io.containerd.snapshotter.v1.devmapper',
  'diff-service': 'io.containerd.service.v1.diff-service',
  linux: 'io.containerd.runtime.v1.linux',
  native: 'io.containerd.snapshotter.v1.native',
  opt: 'io.containerd.internal.v1.opt',
  overlayfs: 'io.containerd.snapshotter.v1.overlayfs',
  restart: 'io.containerd.internal.v1.restart',
  scheduler: 'io.containerd.gc.v1.scheduler',
  task: 'io.containerd.runtime.v2.task',
  'tasks-service': 'io.containerd.service.v1.tasks-service',
  walking: 'io.containerd.differ.v1.walking',
  zfs: 'io.containerd.snapshotter.v1.zfs',
};

/** The document in the layout of version 3. Its table is the given one, changed in place. */
export function toVersion3(document: TomlDocument, version: number): TomlDocument {
  const mover = new Mover(document.table);
  if (version === 1) nameFully(mover);
  if (version <= 2) fromVersion2(mover);
  if (version >= 4) fromVersion4(mover);
  return { ...document, locate: (path) => document.locate(mover.origin(path)) };
}

function nameFully(mover: Mover): void {
  for (const [short, uri] of Object.entries(shortNames)) mover.move(['plugins', short], ['plugins', uri]);
  mover.rename(shortNames);
}

function fromVersion2(mover: Mover): void {
  for (const [from, to] of Object.entries(renamedPlugins)) mover.move(['plugins', from], ['plugins', to]);
  mover.rename(renamedPlugins);
  const at = (...keys: string[]) => ['plugins', cri, ...keys];
  for (const key of toImages) mover.move(at(key), ['plugins', criImages, key]);
  for (const key of toImagesFromContainerd) mover.move(at('containerd', key), ['plugins', criImages, key]);
  mover.move(at('sandbox_image'), ['plugins', criImages, 'pinned_images', 'sandbox']);
  mover.move(at('cni', 'bin_dir'), at('cni', 'bin_dirs'), (dir) => [dir]);
  const runtimes = mover.get(at('containerd', 'runtimes'));
  for (const [name, runtime] of Object.entries(isTable(runtimes) ? runtimes : {})) {
    mover.move(at('containerd', 'runtimes', name, 'sandbox_mode'), at('containerd', 'runtimes', name, 'sandboxer'));
    // Both halves want to know it since the split: images to unpack for that runtime, runtime to start from it.
    if (isTable(runtime) && typeof runtime.snapshotter === 'string')
      mover.set(['plugins', criImages, 'runtime_platforms', name, 'snapshotter'], runtime.snapshotter);
  }
  const rest = mover.get(at());
  for (const key of Object.keys(isTable(rest) ? rest : {})) {
    if (!staysInCri.includes(key)) mover.move(at(key), ['plugins', criRuntime, key]);
  }
}

function fromVersion4(mover: Mover): void {
  const server = (name: string, ...keys: string[]) => ['plugins', `io.containerd.server.v1.${name}`, ...keys];
  mover.move(server('grpc'), ['grpc']);
  for (const key of ['address', 'tls_ca', 'tls_cert', 'tls_key', 'tls_common_name'])
    mover.move(server('grpc-tcp', key), ['grpc', `tcp_${key}`]);
  mover.move(server('ttrpc'), ['ttrpc']);
  for (const key of ['address', 'uid', 'gid']) mover.move(server('debug', key), ['debug', key]);
  mover.move(server('metrics'), ['metrics']);
  mover.move(['plugins', 'io.containerd.metrics.v1.grpc-prometheus', 'grpc_histogram'], ['metrics', 'grpc_histogram']);
}

class Mover {
  readonly #root: TomlTable;
  /** New path → where it was written. */
  readonly #moved: { from: Path; to: Path }[] = [];

  constructor(root: TomlTable) {
    this.#root = root;
  }

  get(path: Path): unknown {
    let value: unknown = this.#root;
    for (const key of path) {
      if (!isTable(value) || !Object.hasOwn(value, key)) return undefined;
      value = value[key];
    }
    return value;
  }

  set(path: Path, value: unknown): void {
    let table = this.#root;
    for (const key of path.slice(0, -1)) {
      const next = Object.hasOwn(table, key) ? table[key] : undefined;
      if (isTable(next)) table = next;
      else {
        // A value of the wrong kind stands there; it stays, so that reading reports it, and this one is lost with it.
        if (next !== undefined) return;
        const made: TomlTable = Object.create(null);
        table[key] = made;
        table = made;
      }
    }
    table[path.at(-1)!] = value;
  }

  /** Tables are merged into one that is there already; a value that is there already wins, being written in the newer place. Emptied tables go. */
  move(from: Path, to: Path, convert: (value: unknown) => unknown = (value) => value): void {
    const value = this.get(from);
    if (value === undefined) return;
    const there = this.get(to);
    if (there !== undefined && isTable(there) && isTable(value)) {
      for (const key of Object.keys(value)) this.move([...from, key], [...to, key]);
    } else if (there === undefined) {
      this.set(to, convert(value));
      this.#moved.push({ from, to });
    }
    this.#remove(from);
  }

  /** Names in disabled_plugins and required_plugins. */
  rename(names: Readonly<Record<string, string>>): void {
    for (const key of ['disabled_plugins', 'required_plugins']) {
      const list = this.#root[key];
      if (!Array.isArray(list)) continue;
      this.#root[key] = list.map((item) =>
        typeof item === 'string' && Object.hasOwn(names, item) ? names[item] : item,
      );
    }
  }

  origin(path: Path): Path {
    let found = path;
    for (const { from, to } of this.#moved.toReversed()) {
      if (to.every((key, i) => key === found[i])) found = [...from, ...found.slice(to.length)];
    }
    return found;
  }

  #remove(path: Path): void {
    const parent = this.get(path.slice(0, -1));
    if (!isTable(parent)) return;
    delete parent[path.at(-1)!];
    if (path.length > 1 && Object.keys(parent).length === 0) this.#remove(path.slice(0, -1));
  }
}
