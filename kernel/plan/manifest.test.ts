import test from 'ava';
import { ProblemsError, renderProblem } from '../config/problem.ts';
import { parseManifest } from './manifest.ts';

const full = `
api = 1
id = "io.containerd.service.v1.images-service"
aliases = ["io.containerd.grpc.v1.images"]
requires = ["troupe.records.v1.records"]
wants = ["io.containerd.event.v1"]
after = ["io.containerd.content.v1.content"]
restart = "transient"
limits = { soft_mb = 64, hard_mb = 512 }
state = { version = 2, reads = [1, 2] }
reload = "exclusive"
group = "g"
strategy = "rest_for_one"
backoff = { min = "100ms", max = "2s", restarts = 3, within = "1m" }
deadlines = { start = "20s", stop = "1s" }
thread = "lean"
capabilities = ["rebase"]
platforms = ["linux/amd64"]
exports = { root = "/x" }
[serves."containerd.services.images.v1.Images"]
version = "1.2.0"
public = true
[serves."containerd.services.images.v1.Images".methods.Watch]
on_reload = "migrate"
unbounded = true
priority = "bulk"
[serves."containerd.services.images.v1.Images".methods.Get]
deadline = "10s"
idempotent = true
[serves."example.v1.Named"]
name = "one"
proto = "x.proto"
[uses]
"troupe.records.v1.Records" = "1"
"troupe.events.v1.Events" = { version = ">=1.1 <3", optional = true }
[config.gc_delay]
type = "duration"
default = "1m30s"
doc = "how long a removed image may linger"
[config.cache]
type = "size"
default = "16MiB"
doc = "bytes of cache"
[config.policy]
type = "string"
default = "shared"
choices = ["shared", "isolated"]
doc = "who sees a blob"
[config.extra]
type = "table"
default = { a = 1 }
doc = "free"
[config.empty]
type = "strings"
doc = "none"
`;

function problemsOf(text: string): string[] {
  try {
    parseManifest(text, '/p/x/plugin.toml');
  } catch (error) {
    if (error instanceof ProblemsError) return error.problems.map(renderProblem);
    throw error;
  }
  return [];
}

test('every key is read', (t) => {
  const manifest = parseManifest(full, '/p/images/plugin.toml');
  t.is(manifest.type, 'io.containerd.service.v1');
  t.is(manifest.name, 'images-service');
  t.is(manifest.dir, '/p/images');
  t.deepEqual(manifest.aliases, ['io.containerd.grpc.v1.images']);
  t.deepEqual(manifest.requires, ['troupe.records.v1.records']);
  t.is(manifest.restart, 'transient');
  t.deepEqual(manifest.limits, { softMb: 64, hardMb: 512 });
  t.deepEqual(manifest.state, { version: 2, reads: [1, 2] });
  t.is(manifest.reload, 'exclusive');
  t.is(manifest.group, 'g');
  t.is(manifest.strategy, 'rest_for_one');
  t.deepEqual(manifest.backoff, { minMs: 100, maxMs: 2000, restarts: 3, withinMs: 60_000 });
  t.deepEqual(manifest.deadlines, { loadMs: 20_000, startMs: 20_000, stopMs: 1000 });
  t.is(manifest.thread, 'lean');
  t.deepEqual(manifest.exports, { root: '/x' });
  t.deepEqual(manifest.serves['containerd.services.images.v1.Images'], {
    version: '1.2.0',
    public: true,
    methods: {
      Watch: { onReload: 'migrate', unbounded: true, priority: 'bulk' },
      Get: { deadlineMs: 10_000, idempotent: true },
    },
  });
  t.deepEqual(manifest.serves['example.v1.Named'], {
    version: '1.0.0',
    public: false,
    name: 'one',
    proto: '/p/images/x.proto',
    methods: {},
  });
  t.deepEqual(manifest.uses, {
    'troupe.records.v1.Records': { range: '1', optional: false },
    'troupe.events.v1.Events': { range: '>=1.1 <3', optional: true },
  });
  t.is(manifest.config.gc_delay?.default, 90_000);
  t.is(manifest.config.cache?.default, 16 * 2 ** 20);
  t.deepEqual(manifest.config.policy?.choices, ['shared', 'isolated']);
  t.deepEqual({ ...(manifest.config.extra?.default as object) }, { a: 1 });
  t.deepEqual(manifest.config.empty?.default, []);
});

test('two lines are enough, and the rest has defaults', (t) => {
  const manifest = parseManifest('api = 1\nid = "a.v1.b"\n', '/p/b/plugin.toml');
  t.is(manifest.restart, 'permanent');
  t.is(manifest.group, 'a.v1.b');
  t.deepEqual(manifest.limits, { softMb: 128, hardMb: 512 });
  t.deepEqual(manifest.state, { version: 1, reads: [1] });
  t.deepEqual(manifest.backoff, { minMs: 0, maxMs: 1600, restarts: 5, withinMs: 30_000 });
  t.deepEqual(manifest.deadlines, { loadMs: 60_000, startMs: 10_000, stopMs: 5000 });
  t.false('thread' in manifest);
});

test('all problems of a file are told at once, each with its line', (t) => {
  const found = problemsOf(`api = 7
id = "no dots"
restart = "often"
requires = ["a.b", "not an id"]
limits = { soft_mb = 900, hard_mb = 512 }
state = { version = 3, reads = [1] }
requries = []
[serves.Images]
version = "one"
[serves."a.B".methods.Get]
unbounded = true
deadline = "5"
[uses]
"a.C" = "newest"
[config.x]
type = "color"
`);
  t.deepEqual(found, [
    '/p/x/plugin.toml:2: id "no dots" is not TYPE.NAME: parts of letters, digits, - and _, joined by dots',
    '/p/x/plugin.toml:1: written for version 7 of troupe/plugin, this kernel offers 1',
    '/p/x/plugin.toml:4: requires: "not an id" is neither an id nor a type',
    '/p/x/plugin.toml:3: restart must be one of permanent, transient, temporary, not "often"',
    '/p/x/plugin.toml:5: limits.soft_mb 900 is above limits.hard_mb 512',
    '/p/x/plugin.toml:6: state.reads must include state.version, 3',
    '/p/x/plugin.toml:8: "Images" is not the full name of a service',
    '/p/x/plugin.toml:9: version "one" is not MAJOR.MINOR.PATCH',
    '/p/x/plugin.toml:12: serves."a.B".methods.Get.deadline must be a duration such as "10s", "1m30s" or "0", not negative, not "5"',
    '/p/x/plugin.toml:14: uses: "newest" is not a range of versions, such as "1" or ">=1.2 <3"',
    '/p/x/plugin.toml:16: config.x: type must be one of string, boolean, integer, float, duration, size, strings, table, tables',
    '/p/x/plugin.toml:15: config.x has no doc',
    '/p/x/plugin.toml:7: unknown key requries (did you mean "requires"?)',
  ]);
});

test('missing api and id, broken TOML, an unbounded method with a deadline', (t) => {
  t.deepEqual(problemsOf(''), [
    '/p/x/plugin.toml: id is missing: TYPE.NAME, such as "io.example.v1.plugin"',
    '/p/x/plugin.toml: api is missing: the version of troupe/plugin that this plugin was written for, now 1',
  ]);
  t.regex(problemsOf('api = 1\nid = \n')[0]!, /^\/p\/x\/plugin\.toml:2:\d+: /);
  t.deepEqual(problemsOf('api=1\nid="a.v1.b"\n[serves."a.B".methods.Get]\nunbounded = true\ndeadline = "5s"\n'), [
    '/p/x/plugin.toml:5: method Get is unbounded and has a deadline',
  ]);
});
