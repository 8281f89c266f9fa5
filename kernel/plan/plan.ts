/**
 * Manifests → the order to start plugins in and who serves what, or every problem at once. Pure: no file, no thread, no clock, so that
 * what `trouped plan` prints is what the daemon does.
 *
 * Three keys make an edge (start after): `requires` also means "not without", `wants` and `after` bind only while the other is there
 * (`wants` documents that its service is used, `after` that only the order matters). `uses` makes none: it is a link, and calls over it wait for
 * the other side; who needs a contract while starting says `requires` too.
 */
import { suggestion } from '../config/nearest.ts';
import type { Problem } from '../config/problem.ts';
import { findCycles, topologicalWaves } from './graph.ts';
import { type Manifest, splitId } from './manifest.ts';
import { satisfies } from './version.ts';

export interface PlanOptions {
  /** Ids or aliases: `disabled_plugins` of the config. */
  readonly disabled?: readonly string[];
  /** Ids or aliases: `required_plugins` of the config. One that does not start is the daemon's failure. */
  readonly required?: readonly string[];
  /** Contract → version of what the kernel itself serves to plugins. */
  readonly provided?: Readonly<Record<string, string>>;
  /** Plugins that are not among the manifests because something is wrong with them. */
  readonly leftOut?: readonly LeftOut[];
}

/** Somebody's plugin that cannot be started. The daemon serves on without it. */
export interface LeftOut {
  /** Of its manifest; made from the name of the folder where there is none to be read. */
  readonly id: string;
  readonly dir: string;
  /** What is wrong and where, on one line. */
  readonly reason: string;
}

export type DependencyKind = 'requires' | 'wants' | 'after';

export interface Dependency {
  /** Id of the plugin that comes first. */
  readonly on: string;
  readonly kind: DependencyKind;
  /** What the manifest says, when that is a type or an alias rather than the id. */
  readonly via: string;
}

export interface Route {
  readonly plugin: string;
  readonly version: string;
  readonly public: boolean;
  readonly name?: string;
}

export interface Skipped {
  readonly id: string;
  /** `disabled in the config`, or `requires a, which requires b: disabled in the config`. */
  readonly reason: string;
}

export interface Plan {
  readonly ok: true;
  /** Ids in the order of starting; stopping is its reverse. */
  readonly order: readonly string[];
  /** The same ids: all of a wave can start at once when the waves before are up. (Plugins start as soon as their own dependencies are.) */
  readonly waves: readonly (readonly string[])[];
  /** For every id of `order`. */
  readonly dependencies: ReadonlyMap<string, readonly Dependency[]>;
  /** Contract → its providers, the public one first. */
  readonly routes: ReadonlyMap<string, readonly Route[]>;
  /** Manifests of `order` by id. */
  readonly manifests: ReadonlyMap<string, Manifest>;
  /** Ids that the daemon cannot do without. */
  readonly required: ReadonlySet<string>;
  readonly skipped: readonly Skipped[];
  readonly leftOut: readonly LeftOut[];
  readonly warnings: readonly Problem[];
}

export interface Refused {
  readonly ok: false;
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
}

export function plan(manifests: readonly Manifest[], options: PlanOptions = {}): Plan | Refused {
  const problems: Problem[] = [];
  const warnings: Problem[] = [];
  const leftOut = options.leftOut ?? [];
  const known = new Names(manifests, problems);
  const disabled = resolveAll(known, options.disabled ?? [], (id) => {
    if (leftOut.some((each) => each.id === id)) return;
    warnings.push({ message: `disabled_plugins: no plugin "${id}"${known.suggest(id)}` });
  });
  const required = resolveAll(known, options.required ?? [], (id) => {
    const broken = leftOut.find((each) => each.id === id);
    problems.push({
      message:
        broken === undefined
          ? `required_plugins: no plugin "${id}"${known.suggest(id)}`
          : `required_plugins: ${id} is left out: ${broken.reason}`,
    });
  });

  for (const manifest of known.byId.values()) checkRequires(manifest, known, leftOut, problems);
  const skipped = skippedBy(known, disabled);
  for (const id of required) {
    const reason = skipped.get(id);
    if (reason !== undefined) problems.push({ message: `required_plugins: ${id} would not start: ${reason}` });
  }

  const planned = [...known.byId.values()].filter((manifest) => !skipped.has(manifest.id));
  const dependencies = new Map(planned.map((manifest) => [manifest.id, dependenciesOf(manifest, known, skipped)]));
  const edges = new Map(
    [...dependencies].map(([id, list]) => [id, [...new Set(list.map((dependency) => dependency.on))]]),
  );
  for (const cycle of findCycles(edges)) problems.push(cycleProblem(cycle, dependencies, known));
  const routes = routesOf(planned, known, problems);
  checkUses(planned, known, routes, options.provided ?? {}, problems, warnings);

  if (problems.length > 0) return { ok: false, problems, warnings };
  const waves = topologicalWaves(edges);
  return {
    ok: true,
    order: waves.flat(),
    waves,
    dependencies,
    routes,
    manifests: new Map(planned.map((manifest) => [manifest.id, manifest])),
    required,
    skipped: [...skipped].map(([id, reason]) => ({ id, reason })),
    leftOut,
    warnings,
  };
}

/** Ids, aliases and types, and what each stands for. */
class Names {
  readonly byId = new Map<string, Manifest>();
  readonly #byAlias = new Map<string, string>();
  readonly #byType = new Map<string, string[]>();

  constructor(manifests: readonly Manifest[], problems: Problem[]) {
    for (const manifest of manifests) {
      const other = this.byId.get(manifest.id);
      if (other === undefined) this.byId.set(manifest.id, manifest);
      else problems.push({ ...blame(manifest, other), message: `plugin ${manifest.id} is also in ${other.file}` });
    }
    for (const manifest of this.byId.values()) {
      this.#byType.set(manifest.type, [...(this.#byType.get(manifest.type) ?? []), manifest.id]);
      for (const alias of manifest.aliases) {
        const owner = this.byId.has(alias) ? alias : this.#byAlias.get(alias);
        if (owner === undefined) this.#byAlias.set(alias, manifest.id);
        else
          problems.push({
            ...blame(manifest, this.byId.get(owner)!),
            message: `alias ${alias} of ${manifest.id} already stands for ${owner}`,
          });
      }
    }
  }

  /** The id behind an id or alias. */
  id(name: string): string | undefined {
    return this.byId.has(name) ? name : this.#byAlias.get(name);
  }

  /** The ids behind an id, an alias or a type. */
  ids(name: string): readonly string[] {
    const id = this.id(name);
    return id === undefined ? (this.#byType.get(name) ?? []) : [id];
  }

  suggest(name: string): string {
    return suggestion(name, [...this.byId.keys(), ...this.#byAlias.keys(), ...this.#byType.keys()]);
  }
}

function resolveAll(known: Names, names: readonly string[], unknown: (name: string) => void): Set<string> {
  const ids = new Set<string>();
  for (const name of names) {
    const id = known.id(name);
    if (id === undefined) unknown(name);
    else ids.add(id);
  }
  return ids;
}

/** A problem of the first, that would not be there without the others either. */
function blame(manifest: Manifest, ...others: readonly Manifest[]): Pick<Problem, 'file' | 'blames'> {
  return { file: manifest.file, blames: [manifest, ...others].map(({ file }) => file) };
}

function checkRequires(manifest: Manifest, known: Names, leftOut: readonly LeftOut[], problems: Problem[]): void {
  for (const name of manifest.requires) {
    if (known.ids(name).length > 0) continue;
    const broken = leftOut.find(({ id }) => id === name || splitId(id).type === name);
    const why =
      broken === undefined ? `which no plugin is${known.suggest(name)}` : `which is left out: ${broken.reason}`;
    problems.push({ ...blame(manifest), message: `${manifest.id} requires ${name}, ${why}` });
  }
}

/** Disabled plugins and whoever cannot be without them. A required type is satisfied by what is left of it. */
function skippedBy(known: Names, disabled: ReadonlySet<string>): Map<string, string> {
  const skipped = new Map([...disabled].map((id) => [id, 'disabled in the config']));
  for (let before = -1; before !== skipped.size; ) {
    before = skipped.size;
    for (const { id, requires } of known.byId.values()) {
      if (skipped.has(id)) continue;
      for (const name of requires) {
        const targets = known.ids(name).filter((target) => target !== id);
        if (targets.length === 0 || targets.some((target) => !skipped.has(target))) continue;
        const reason = skipped.get(targets[0]!)!;
        skipped.set(
          id,
          reason.startsWith('requires ')
            ? `requires ${targets[0]}, which ${reason}`
            : `requires ${targets[0]}: ${reason}`,
        );
        break;
      }
    }
  }
  return skipped;
}

function dependenciesOf(manifest: Manifest, known: Names, skipped: ReadonlyMap<string, string>): Dependency[] {
  const found = new Map<string, Dependency>();
  for (const kind of ['requires', 'wants', 'after'] as const) {
    for (const via of manifest[kind]) {
      const isSelf = known.id(via) === manifest.id;
      for (const on of known.ids(via)) {
        // A type includes the plugin itself when it is of that type, which is no wish to come before itself; its own id is a mistake.
        if (skipped.has(on) || found.has(on) || (on === manifest.id && !isSelf)) continue;
        found.set(on, { on, kind, via });
      }
    }
  }
  return [...found.values()];
}

function cycleProblem(
  cycle: readonly string[],
  dependencies: ReadonlyMap<string, readonly Dependency[]>,
  known: Names,
): Problem {
  const soft = cycle.flatMap((id, i) => {
    const next = cycle[i + 1];
    const edge = dependencies.get(id)?.find((dependency) => dependency.on === next);
    return edge === undefined || edge.kind === 'requires' ? [] : [`${id} ${edge.kind} ${edge.via}`];
  });
  // A soft edge is the one that can go without losing anything but order.
  const hint = soft.length === 0 ? '' : ` (could be cut at: ${soft.join(', ')})`;
  const blames = [...new Set(cycle)].map((id) => known.byId.get(id)!.file);
  return { message: `plugins wait for each other: ${cycle.join(' → ')}${hint}`, blames };
}

function routesOf(planned: readonly Manifest[], known: Names, problems: Problem[]): Map<string, Route[]> {
  const routes = new Map<string, Route[]>();
  for (const manifest of planned) {
    for (const [contract, serve] of Object.entries(manifest.serves)) {
      const route = {
        plugin: manifest.id,
        version: serve.version,
        public: serve.public,
        ...(serve.name !== undefined && { name: serve.name }),
      };
      const others = routes.get(contract) ?? [];
      const named = serve.name === undefined ? contract : `${contract} "${serve.name}"`;
      const same = others.find((other) => other.name === route.name);
      const otherPublic = others.find((other) => other.public);
      if (same !== undefined)
        problems.push({
          ...blame(manifest, known.byId.get(same.plugin)!),
          message: `${manifest.id} and ${same.plugin} both serve ${named}`,
        });
      else if (serve.public && otherPublic !== undefined)
        problems.push({
          ...blame(manifest, known.byId.get(otherPublic.plugin)!),
          message: `${manifest.id} and ${otherPublic.plugin} both serve ${contract} to the outside`,
        });
      routes.set(contract, serve.public ? [route, ...others] : [...others, route]);
    }
  }
  return routes;
}

function checkUses(
  planned: readonly Manifest[],
  known: Names,
  routes: ReadonlyMap<string, readonly Route[]>,
  provided: Readonly<Record<string, string>>,
  problems: Problem[],
  warnings: Problem[],
): void {
  const served = new Set([...known.byId.values()].flatMap((manifest) => Object.keys(manifest.serves)));
  for (const manifest of planned) {
    const { id, file, uses } = manifest;
    for (const [contract, { range, optional }] of Object.entries(uses)) {
      const ofKernel = Object.hasOwn(provided, contract)
        ? [{ plugin: 'the kernel', version: provided[contract]!, public: false }]
        : [];
      const providers: readonly Route[] = [...ofKernel, ...(routes.get(contract) ?? [])];
      for (const provider of providers) {
        if (satisfies(provider.version, range)) continue;
        const named = provider.name === undefined ? '' : ` "${provider.name}"`;
        const other = known.byId.get(provider.plugin);
        problems.push({
          ...blame(manifest, ...(other === undefined ? [] : [other])),
          message: `${id} uses ${contract} ${range}, but ${provider.plugin} serves${named} version ${provider.version}`,
        });
      }
      if (providers.length > 0 || optional) continue;
      if (served.has(contract))
        warnings.push({ file, message: `${id} uses ${contract}, whose provider is not started: such calls will fail` });
      else
        problems.push({
          ...blame(manifest),
          message: `${id} uses ${contract}, which no plugin serves${suggestion(contract, served)}`,
        });
    }
  }
}
