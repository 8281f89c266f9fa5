import test from 'ava';
import { parseManifest } from './manifest.ts';
import { planWithout } from './without.ts';

const base = parseManifest('api = 1\nid = "own.v1.base"\n[serves."a.v1.A"]\npublic = true\n', '/own/base/plugin.toml');
const user = parseManifest(
  'api = 1\nid = "own.v1.user"\nwants = ["third.v1"]\n[uses]\n"b.v1.B" = { version = "1", optional = true }\n',
  '/own/user/plugin.toml',
);

function planned(...texts: string[]) {
  const others = texts.map((text, i) => parseManifest(`api = 1\n${text}`, `/third/${i}/plugin.toml`));
  const { plan, problems, leftOut } = planWithout([base, user], others, [], () => ({ problems: [] }), {});
  return {
    order: plan.ok ? [...plan.order].sort() : [],
    problems: problems.map(({ message }) => message),
    reasons: Object.fromEntries(leftOut.map(({ id, dir, reason }) => [`${id} ${dir}`, reason])),
  };
}

const own = ['own.v1.base', 'own.v1.user'];

test('a plugin of somebody that clashes with a built-in one is left out, whichever way', (t) => {
  t.deepEqual(planned('id = "own.v1.base"'), {
    order: own,
    problems: [],
    reasons: { 'own.v1.base /third/0': '/third/0/plugin.toml: plugin own.v1.base is also in /own/base/plugin.toml' },
  });
  const cases: [string, RegExp][] = [
    [
      'aliases = ["own.v1.base"]',
      /^\/third\/0\/plugin\.toml: alias own\.v1\.base of third\.v1\.x already stands for own\.v1\.base$/,
    ],
    ['[serves."a.v1.A"]', /third\.v1\.x and own\.v1\.base both serve a\.v1\.A$/],
    ['[serves."a.v1.A"]\npublic = true\nname = "x"', /both serve a\.v1\.A to the outside$/],
    ['[serves."b.v1.B"]\nversion = "2.0.0"', /own\.v1\.user uses b\.v1\.B 1, but third\.v1\.x serves version 2\.0\.0$/],
    ['[uses]\n"a.v1.A" = "2"', /third\.v1\.x uses a\.v1\.A 2, but own\.v1\.base serves version 1\.0\.0$/],
    ['requires = ["own.v1.nothing"]', /third\.v1\.x requires own\.v1\.nothing, which no plugin is/],
    ['requires = ["own.v1.user"]', /wait for each other: .*own\.v1\.user/],
  ];
  for (const [rest, reason] of cases) {
    const { order, problems, reasons } = planned(`id = "third.v1.x"\n${rest}`);
    t.deepEqual([order, problems], [own, []], rest);
    t.regex(reasons['third.v1.x /third/0'] ?? '', reason);
  }
});

test('who requires one that is left out is left out for that reason; of a cycle all are', (t) => {
  const { order, reasons } = planned(
    'id = "x.v1.a"\nrequires = ["x.v1.b"]',
    'id = "x.v1.b"\nrequires = ["x.v1.c"]',
    'id = "x.v1.c"\nrequires = ["x.v1.a"]',
    'id = "x.v1.fine"\nwants = ["x.v1.a"]',
  );
  t.deepEqual(order, [...own, 'x.v1.fine']);
  t.deepEqual(Object.keys(reasons).sort(), ['x.v1.a /third/0', 'x.v1.b /third/1', 'x.v1.c /third/2']);
  t.regex(reasons['x.v1.a /third/0']!, /x\.v1\.a → x\.v1\.b → x\.v1\.c → x\.v1\.a/);
  t.regex(reasons['x.v1.c /third/2']!, /x\.v1\.c requires x\.v1\.a, which is left out: plugins wait/);
});

test('of two that serve the same the first is kept', (t) => {
  const { order, reasons } = planned('id = "x.v1.a"\n[serves."c.v1.C"]', 'id = "x.v1.b"\n[serves."c.v1.C"]');
  t.deepEqual([order, Object.keys(reasons)], [[...own, 'x.v1.a'], ['x.v1.b /third/1']]);
});

test('what is wrong with a built-in plugin, or with the config, stays a problem', (t) => {
  const broken = parseManifest(
    'api = 1\nid = "own.v1.broken"\nrequires = ["own.v1.nothing"]\n',
    '/own/broken/plugin.toml',
  );
  const { plan, problems, leftOut } = planWithout([base, broken], [], [], () => ({ problems: [] }), {});
  t.false(plan.ok);
  t.deepEqual([problems.length, leftOut.length], [1, 0]);
});

test('a config of a plugin that has a mistake leaves out the plugin and names the line', (t) => {
  const other = parseManifest('api = 1\nid = "x.v1.a"\n', '/third/a/plugin.toml');
  const problem = { file: '/c.toml', line: 3, message: 'unknown key', blames: [other.file] };
  const { plan, problems, leftOut } = planWithout(
    [base],
    [other],
    [],
    (manifests) => ({ problems: manifests.includes(other) ? [problem] : [] }),
    {},
  );
  t.true(plan.ok);
  t.deepEqual(problems, []);
  t.deepEqual(leftOut, [{ id: 'x.v1.a', dir: '/third/a', problems: [problem], reason: '/c.toml:3: unknown key' }]);
});
