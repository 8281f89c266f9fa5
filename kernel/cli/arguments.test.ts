import test from 'ava';
import { parseArguments } from './arguments.ts';

function usage(argv: string[]): string {
  const invocation = parseArguments(argv);
  return invocation.command === 'usage error' ? invocation.message : `not refused: ${JSON.stringify(invocation)}`;
}

test('the daemon with all its flags, in every spelling', (t) => {
  const flags = { config: '/c', address: '/a', root: '/r', state: '/s', logLevel: 'debug' };
  t.deepEqual(parseArguments([]), { command: 'daemon', flags: {} });
  for (const line of [
    '--config /c --address /a --root /r --state /s --log-level debug',
    '--config=/c --address=/a --root=/r --state=/s --log-level=debug',
    '-c /c -a /a --root /r --state /s -l debug',
    '-config /c -address=/a -root=/r -state /s -log-level debug',
  ]) {
    t.deepEqual(parseArguments(line.split(' ')), { command: 'daemon', flags }, line);
  }
  t.deepEqual(parseArguments(['--root=', '--config', 'a=b']), {
    command: 'daemon',
    flags: { root: '', config: 'a=b' },
  });
});

test('publish as shims call it, and in any order', (t) => {
  const expected = { command: 'publish', flags: { address: '/a' }, namespace: 'ns', topic: '/t' };
  t.deepEqual(parseArguments('--address /a publish --topic /t --namespace ns'.split(' ')), expected as never);
  t.deepEqual(parseArguments('publish --namespace=ns --address /a -topic /t'.split(' ')), expected as never);
  t.deepEqual(parseArguments('--namespace ns --topic /t --address /a publish'.split(' ')), expected as never);
  t.is(usage(['publish', '--namespace', 'x']), 'publish needs --topic');
  t.is(usage(['publish', '--topic', 'x', 'y']), 'publish takes no argument, and got "y"');
  t.is(usage(['--topic', 'x']), '--topic belongs to publish');
});

test('oci-hook keeps what follows as it is', (t) => {
  const args = ['sh', '-c', 'echo {{id}}', '--address', '-h', '--'];
  t.deepEqual(parseArguments(['oci-hook', '--', ...args]), { command: 'oci-hook', args });
  t.deepEqual(parseArguments(['--address', '/a', 'oci-hook', ...args]), { command: 'oci-hook', args });
  t.is(usage(['oci-hook']), 'oci-hook needs a command to run');
  t.is(usage(['oci-hook', '--']), 'oci-hook needs a command to run');
});

test('config, plan, version and help', (t) => {
  t.deepEqual(parseArguments(['-c', 'x', 'config', 'dump']), { command: 'config dump', flags: { config: 'x' } });
  t.deepEqual(parseArguments(['config', 'migrate', '-c', 'x']), { command: 'config migrate', flags: { config: 'x' } });
  t.deepEqual(parseArguments(['config', 'explain', 'grpc.address']), {
    command: 'config explain',
    flags: {},
    key: 'grpc.address',
  });
  t.deepEqual(parseArguments(['plan', '--root', '/r']), { command: 'plan', flags: { root: '/r' } });
  t.deepEqual(parseArguments(['config']), { command: 'help', topic: 'config' });
  t.deepEqual(parseArguments(['publish', '-h']), { command: 'help', topic: 'publish' });
  t.deepEqual(parseArguments(['help', 'plan']), { command: 'help', topic: 'plan' });
  for (const flag of ['-v', '--version', '-version', '--version=true'])
    t.deepEqual(parseArguments([flag]), { command: 'version' });
  t.deepEqual(parseArguments(['--version=false']), { command: 'daemon', flags: {} });
});

test('plugins: what each command takes', (t) => {
  const plugins = { command: 'plugins', flags: {}, json: false, force: false } as const;
  t.deepEqual(parseArguments(['plugins', 'ls']), { ...plugins, action: 'ls', ids: [] });
  t.deepEqual(parseArguments('--json -a /a plugins list x.v1.y'.split(' ')), {
    ...plugins,
    action: 'ls',
    ids: ['x.v1.y'],
    json: true,
    flags: { address: '/a' },
  });
  t.deepEqual(parseArguments('plugins reload a.b c.d --force'.split(' ')), {
    ...plugins,
    action: 'reload',
    ids: ['a.b', 'c.d'],
    force: true,
  });
  t.deepEqual(parseArguments('plugins profile a.b --seconds 0.5 -o -'.split(' ')), {
    ...plugins,
    action: 'profile',
    ids: ['a.b'],
    seconds: 0.5,
    output: '-',
  });
  t.deepEqual(parseArguments(['plugins']), { command: 'help', topic: 'plugins' });
  t.deepEqual(parseArguments('config reload --dry-run'.split(' ')), {
    command: 'config reload',
    flags: {},
    dryRun: true,
  });
  t.deepEqual(parseArguments(['--watch', '-c', 'x']), { command: 'daemon', flags: { config: 'x' }, watch: true });
  t.is(usage(['plugins', 'reload']), 'plugins reload needs the id of a plugin');
  t.is(usage(['plugins', 'profile', 'a.b', 'c.d']), 'plugins profile needs one id of a plugin');
  t.is(usage(['plugins', 'relaod', 'a.b']), 'unknown command "plugins relaod" (did you mean "reload"?)');
  t.is(usage(['plugins', 'top', 'a.b']), 'plugins top takes no argument, and got "a.b"');
  for (const seconds of ['0', '-1', '61', 'x'])
    t.is(
      usage(['plugins', 'profile', 'a.b', `--seconds=${seconds}`]),
      `--seconds is from above 0 to 60, not ${seconds}`,
    );
  t.is(usage(['plugins', 'ls', '--force']), '--force belongs to plugins reload');
  t.is(usage(['config', 'dump', '--dry-run']), '--dry-run belongs to config reload');
  t.is(usage(['plan', '--watch']), '--watch belongs to the daemon');
});

test('what is wrong is named, with what was probably meant', (t) => {
  t.is(usage(['--adress', '/a']), 'unknown flag --adress (did you mean "address"?)');
  t.is(usage(['-x']), 'unknown flag -x');
  t.is(usage(['--address']), '--address needs a value');
  t.is(usage(['--version=perhaps']), '--version takes no value');
  t.is(usage(['plam']), 'unknown command "plam" (did you mean "plan"?)');
  t.is(usage(['config', 'dumb']), 'unknown command "config dumb" (did you mean "dump"?)');
  t.is(usage(['config', 'dump', 'x']), 'config dump takes no argument, and got "x"');
  t.is(usage(['config', 'explain']), 'config explain needs one key, such as grpc.address');
  t.is(usage(['--__proto__', 'x']), 'unknown flag --__proto__');
  t.is(usage(['constructor']), 'unknown command "constructor"');
});

test('registry test and content verify', (t) => {
  t.deepEqual(parseArguments(['registry', 'test', '--plain-http', '--hosts-dir', '/certs', 'a.test/b:1', '-a', '/s']), {
    command: 'registry test',
    flags: { address: '/s' },
    reference: 'a.test/b:1',
    plainHttp: true,
    hostsDir: '/certs',
  });
  t.deepEqual(parseArguments(['content', 'verify', '--drop']), { command: 'content verify', flags: {}, drop: true });
  const wrong = (...argv: string[]) => (parseArguments(argv) as { message?: string }).message ?? '';
  t.regex(wrong('registry', 'test'), /needs one reference/);
  t.regex(wrong('registry', 'tset', 'x'), /unknown command "registry tset" \(did you mean "test"/);
  t.regex(wrong('content', 'verify', 'x'), /takes no argument, and got "x"/);
  t.is(wrong('plan', '--drop'), '--drop belongs to content verify');
  t.is(wrong('plan', '--hosts-dir', 'x'), '--hosts-dir belongs to registry test');
});
