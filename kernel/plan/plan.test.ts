import test from 'ava';
import { renderProblem } from '../config/problem.ts';
import { type Manifest, parseManifest } from './manifest.ts';
import { type Plan, type PlanOptions, plan } from './plan.ts';
import { renderPlan } from './render.ts';

function manifest(id: string, body = ''): Manifest {
  return parseManifest(`api = 1\nid = "${id}"\n${body}`, `/p/${id}/plugin.toml`);
}

function planned(manifests: Manifest[], options?: PlanOptions): Plan {
  const result = plan(manifests, options);
  if (!result.ok) throw new Error(result.problems.map(renderProblem).join('\n'));
  return result;
}

function problems(manifests: Manifest[], options?: PlanOptions): string[] {
  const result = plan(manifests, options);
  return result.ok ? [] : result.problems.map((problem) => problem.message);
}

test('B2 order: ids, types, aliases, wants and after', (t) => {
  const result = planned([
    manifest('x.v1.top', 'requires = ["s.v1"]\nafter = ["x.v1.absent"]\nwants = ["x.v1.absent"]'),
    manifest('s.v1.one', 'wants = ["old.v1.name"]'),
    manifest('s.v1.two', 'after = ["x.v1.base"]\nrequires = ["s.v1"]'),
    manifest('x.v1.base', 'aliases = ["old.v1.name"]'),
  ]);
  t.deepEqual(result.waves, [['x.v1.base'], ['s.v1.one'], ['s.v1.two'], ['x.v1.top']]);
  t.deepEqual(result.dependencies.get('s.v1.one'), [{ on: 'x.v1.base', kind: 'wants', via: 'old.v1.name' }]);
  t.deepEqual(
    result.dependencies.get('x.v1.top')?.map((d) => d.on),
    ['s.v1.one', 's.v1.two'],
  );
});

test('uses alone orders nothing', (t) => {
  const a = manifest('x.v1.a', '[uses]\n"c.B" = "1"\n[serves."c.A"]\n');
  const b = manifest('x.v1.b', '[uses]\n"c.A" = "1"\n[serves."c.B"]\n');
  t.deepEqual(planned([a, b]).waves, [['x.v1.a', 'x.v1.b']]);
});

test('B3 a cycle is named with its path, and the soft edge that could go', (t) => {
  t.deepEqual(
    problems([
      manifest('x.v1.a', 'requires = ["x.v1.b"]'),
      manifest('x.v1.b', 'requires = ["x.v1.c"]'),
      manifest('x.v1.c', 'requires = ["x.v1.a"]'),
      manifest('x.v1.d', 'requires = ["x.v1.a"]'),
      manifest('x.v1.e', 'after = ["x.v1.f"]'),
      manifest('x.v1.f', 'requires = ["x.v1.e"]'),
      manifest('x.v1.g', 'requires = ["x.v1.g"]'),
    ]),
    [
      'plugins wait for each other: x.v1.a → x.v1.b → x.v1.c → x.v1.a',
      'plugins wait for each other: x.v1.e → x.v1.f → x.v1.e (could be cut at: x.v1.e after x.v1.f)',
      'plugins wait for each other: x.v1.g → x.v1.g',
    ],
  );
});

test('B3 every kind of problem in one run', (t) => {
  const found = problems(
    [
      manifest('x.v1.records', '[serves."c.Records"]\nversion = "2.1.0"\npublic = true\n'),
      manifest('x.v1.records'),
      manifest(
        'x.v1.images',
        'requires = ["x.v1.record"]\naliases = ["x.v1.records"]\n[uses]\n"c.Records" = "1"\n"c.Recrods" = "1"\n',
      ),
      manifest('x.v1.copy', '[serves."c.Records"]\n[serves."c.Named"]\nname = "a"\n'),
      manifest('x.v1.more', '[serves."c.Records"]\nname = "b"\npublic = true\n[serves."c.Named"]\nname = "a"\n'),
    ],
    { required: ['x.v1.imagse', 'x.v1.copy'], disabled: ['x.v1.off'] },
  );
  t.deepEqual(found, [
    'plugin x.v1.records is also in /p/x.v1.records/plugin.toml',
    'alias x.v1.records of x.v1.images already stands for x.v1.records',
    'required_plugins: no plugin "x.v1.imagse" (did you mean "x.v1.images"?)',
    'x.v1.images requires x.v1.record, which no plugin is (did you mean "x.v1.records"?)',
    'x.v1.copy and x.v1.records both serve c.Records',
    'x.v1.more and x.v1.records both serve c.Records to the outside',
    'x.v1.more and x.v1.copy both serve c.Named "a"',
    'x.v1.images uses c.Records 1, but x.v1.records serves version 2.1.0',
    'x.v1.images uses c.Recrods, which no plugin serves (did you mean "c.Records"?)',
  ]);
});

test('B5 disabled plugins take along whoever requires them, and nobody else', (t) => {
  const all = [
    manifest('x.v1.a', 'aliases = ["old.v1.a"]\n[serves."c.A"]'),
    manifest('x.v1.b', 'requires = ["x.v1.a"]'),
    manifest('x.v1.c', 'requires = ["x.v1.b"]'),
    manifest('x.v1.d', 'wants = ["x.v1.a"]\n[uses]\n"c.A" = "1"'),
    manifest('s.v1.one'),
    manifest('s.v1.two'),
    manifest('x.v1.e', 'requires = ["s.v1"]'),
  ];
  const result = planned(all, { disabled: ['old.v1.a', 's.v1.one', 'x.v1.nothing'] });
  t.deepEqual(result.skipped, [
    { id: 'x.v1.a', reason: 'disabled in the config' },
    { id: 's.v1.one', reason: 'disabled in the config' },
    { id: 'x.v1.b', reason: 'requires x.v1.a: disabled in the config' },
    { id: 'x.v1.c', reason: 'requires x.v1.b, which requires x.v1.a: disabled in the config' },
  ]);
  t.deepEqual(result.order, ['x.v1.d', 's.v1.two', 'x.v1.e']);
  t.deepEqual(
    result.warnings.map((w) => w.message),
    [
      'disabled_plugins: no plugin "x.v1.nothing"',
      'x.v1.d uses c.A, whose provider is not started: such calls will fail',
    ],
  );
  t.deepEqual(problems(all, { disabled: ['x.v1.a'], required: ['x.v1.c'] }), [
    'required_plugins: x.v1.c would not start: requires x.v1.b, which requires x.v1.a: disabled in the config',
  ]);
});

test('contracts of the kernel count as served, with their version', (t) => {
  const user = manifest('x.v1.a', '[uses]\n"k.K" = "1"\n');
  t.deepEqual(problems([user]), ['x.v1.a uses k.K, which no plugin serves']);
  t.deepEqual(problems([user], { provided: { 'k.K': '1.3.0' } }), []);
  t.deepEqual(problems([user], { provided: { 'k.K': '2.0.0' } }), [
    'x.v1.a uses k.K 1, but the kernel serves version 2.0.0',
  ]);
});

test('routes: named providers beside each other, the public one first', (t) => {
  const { routes } = planned([
    manifest('s.v1.overlayfs', '[serves."c.Snapshotter"]\nname = "overlayfs"\n'),
    manifest('s.v1.native', '[serves."c.Snapshotter"]\nname = "native"\nversion = "1.1.0"\npublic = true\n'),
  ]);
  t.deepEqual(routes.get('c.Snapshotter'), [
    { plugin: 's.v1.native', version: '1.1.0', public: true, name: 'native' },
    { plugin: 's.v1.overlayfs', version: '1.0.0', public: false, name: 'overlayfs' },
  ]);
});

test('the plan as text', (t) => {
  const manifests = [
    manifest('x.v1.b', 'requires = ["x.v1"]\nthread = "lean"\n[serves."c.B"]\npublic = true'),
    manifest('x.v1.a'),
    manifest('x.v1.off'),
  ];
  t.is(
    renderPlan(plan(manifests, { required: ['x.v1.b'], disabled: ['x.v1.off'] })),
    `2 plugins start in 2 waves
├─ wave 1
│  └─ x.v1.a
└─ wave 2
   └─ x.v1.b (required, lean: thread lean)
      ├─ requires x.v1.a (as x.v1)
      └─ serves c.B 1.0.0, public
not started
   x.v1.off: disabled in the config
`,
  );
  t.is(
    renderPlan(plan([], { required: ['x.v1.q'] })),
    '1 problem, nothing would be started:\n  required_plugins: no plugin "x.v1.q"\n',
  );
});

/** A linear congruential generator: failures name the seed that made them. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

type Edges = ReadonlyMap<string, { readonly requires: readonly string[]; readonly after: readonly string[] }>;

/** The wave of each by the longest way down from it, which is another way to it than the plan's; undefined where a way leads back. */
function depths(edges: Edges): Map<string, number> | undefined {
  const known = new Map<string, number>();
  const under = new Set<string>();
  const depth = (id: string): number => {
    if (under.has(id)) return Number.NaN;
    under.add(id);
    const { requires, after } = edges.get(id)!;
    const found = known.get(id) ?? Math.max(0, ...[...requires, ...after].map((before) => depth(before) + 1));
    under.delete(id);
    known.set(id, found);
    return found;
  };
  return [...edges.keys()].map(depth).some(Number.isNaN) ? undefined : known;
}

/** What of a message's path leads nowhere. */
function unreal(message: string, edges: Edges): string[] {
  const cycle = /: (x\S+(?: → \S+)+)/.exec(message)?.[1]?.split(' → ') ?? [];
  if (cycle.length < 3 || cycle[0] !== cycle.at(-1)) return [message];
  return cycle.slice(1).flatMap((to, i) => {
    const { requires, after } = edges.get(cycle[i]!)!;
    return requires.includes(to) || after.includes(to) ? [] : [`${message}: ${cycle[i]} does not wait for ${to}`];
  });
}

test('B2 500 random graphs: ordered when they can be, refused with a real cycle when not', (t) => {
  const seen = { ordered: 0, refused: 0 };
  for (let seed = 1; seed <= 500; seed++) {
    const next = random(seed);
    const size = 2 + Math.floor(next() * 30);
    const ids = Array.from({ length: size }, (_, i) => `x.v1.p${i}`).sort(() => next() - 0.5);
    const acyclic = seed % 2 === 0;
    const edges = new Map<string, { requires: string[]; after: string[] }>();
    for (const [i, id] of ids.entries()) {
      const pick = () => ids.filter((other, j) => other !== id && (acyclic ? j < i : true) && next() < 2 / size);
      edges.set(id, { requires: pick(), after: pick() });
    }
    const manifests = [...edges].map(([id, { requires, after }]) =>
      manifest(id, `requires = ${JSON.stringify(requires)}\nafter = ${JSON.stringify(after)}\n`),
    );
    const result = plan(manifests.sort(() => next() - 0.5));
    const expected = depths(edges);
    t.is(result.ok, expected !== undefined, `seed ${seed}`);
    if (acyclic) t.true(result.ok, `seed ${seed}`);
    seen[result.ok ? 'ordered' : 'refused'] += 1;
    if (result.ok) {
      const waves = new Map(result.waves.flatMap((wave, i) => wave.map((id) => [id, i])));
      t.deepEqual([...waves].sort(), [...expected!].sort(), `seed ${seed}`);
      t.deepEqual(result.order, result.waves.flat(), `seed ${seed}`);
    } else {
      const wrong = result.problems.flatMap(({ message }) => unreal(message, edges));
      t.deepEqual(wrong, [], `seed ${seed}`);
    }
  }
  t.true(seen.ordered >= 250 && seen.refused >= 100, JSON.stringify(seen));
});

test('a chain of 20 000 plugins neither overflows a stack nor takes long', (t) => {
  const template = manifest('x.v1.p0');
  const manifests = Array.from({ length: 20_000 }, (_, i) => ({
    ...template,
    id: `x.v1.p${i}`,
    requires: i === 0 ? [] : [`x.v1.p${i - 1}`],
    type: `t${i}`,
  }));
  t.is(planned(manifests.reverse()).waves.length, 20_000);
});
