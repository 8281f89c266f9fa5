/** `ctr tasks`, as an operator types it. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { usePair } from '../helpers/pair.ts';

const { test, both } = usePair();

const numbers = (text: string): string => text.replace(/\d+/g, 'N').replace(/[ \t]+/g, ' ');

test('exec: streams, exit, --cwd, --user, --exec-id', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('box');
    let count = 0;
    const exec = (flags: string[], ...args: string[]) => {
      count += 1;
      return side.show(['tasks', 'exec', '--exec-id', `e${count}`, ...flags, 'box', ...args]);
    };
    await side.talk(
      ['tasks', 'exec', '--exec-id', 'both', 'box', 'sh', '-c', 'echo out; read x; echo err >&2; read x; exit 5'],
      [
        { after: /out/, input: '\n' },
        { after: /err/, input: '\n' },
      ],
    );
    await exec([], 'true');
    await side.exec('box', ['--cwd', '/etc'], 'pwd');
    await exec(['--cwd', '/none'], 'pwd');
    await side.exec('box', ['--user', 'games'], 'id');
    await side.exec('box', ['--user', '5'], 'id');
    await side.exec('box', ['--user', '7:100'], 'id');
    await exec(['--user', 'nobody'], 'id');
    await side.exec('box', [], 'env | grep -v SHLVL | grep -v PWD');
    await exec([], 'no-such-program');
    await exec([], '/etc/passwd');
    await exec([], 'sh', '-c', 'kill -9 $$');
    await side.exec('box', [], 'ps -o args | grep -c "^sleep 1000"');
    await side.talk(
      ['tasks', 'exec', '--exec-id', 'fed', 'box', 'sh', '-c', 'echo ready; cat; echo end'],
      [
        { after: /ready/, input: 'typed\n' },
        { after: /typed/, input: 'end' },
      ],
    );
    await side.show(['tasks', 'exec', '--exec-id', 'bad id', 'box', 'true']);
    await side.show(['tasks', 'exec', '--exec-id', 'x'.repeat(77), 'box', 'true']);
    await side.show(['tasks', 'exec', '--exec-id', 'box', 'box', 'sh', '-c', 'exit 2']);
    await side.show(['tasks', 'exec', 'box', 'true']);
    await side.show(['tasks', 'exec', '--exec-id', 'e', 'nobox', 'true']);
    await side.show(['tasks', 'exec', '--exec-id', 'e', 'box']);
    await side.show(['tasks', 'ls']);
  });
  t.regex(said, /\nout\nerr\nexit 5\n/);
  t.regex(said, /\n\/etc\nheard\nexit 0\n/);
  t.regex(said, /\nuid=5\(games\) gid=60\(games\)/);
  t.regex(said, /\nuid=7 gid=100\(users\)/);
  t.regex(said, /kill -9 \$\$\nexit 137\n/);
  t.regex(said, /\nready\ntyped\nend\nexit 0\n/);
  t.regex(said, /container "nobox" in namespace "NAMESPACE": not found\nexit 1\n/);
  t.regex(said, /\nbox PID-OF-box RUNNING\n/);
});

test('exec: a terminal, and detached', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('box');
    const events = await side.events();
    await side.terminal(['tasks', 'exec', '-t', '--exec-id', 'tty', 'box', 'sh', '-c', 'test -t 0 && tty; exit 4']);
    const script =
      'stty -echo; echo ready; read line; until stty size 2>/dev/null | grep -v "^0"; do :; done; echo "got $line"';
    await side.terminal(
      ['tasks', 'exec', '-t', '--exec-id', 'typed', 'box', 'sh', '-c', script],
      [{ after: /ready/, input: 'a line\r' }],
    );
    const trap = 'trap "echo interrupted; exit 7" INT; echo ready; while :; do sleep 0.05; done';
    await side.terminal(
      ['tasks', 'exec', '-t', '--exec-id', 'ctrl-c', 'box', 'sh', '-c', trap],
      [{ after: /ready/, input: '\x03' }],
    );
    await side.show(['tasks', 'exec', '-d', '--exec-id', 'bg', 'box', 'sh', '-c', 'echo made > /made; sleep 1000']);
    await side.show(['tasks', 'exec', '-d', '--exec-id', 'bg', 'box', 'true']);
    // By their pids, of which the later one is the smaller when the numbers have begun anew.
    const [head, ...processes] = numbers((await side.ctr(['tasks', 'ps', 'box'])).stdout)
      .trim()
      .split('\n');
    side.note([head, ...processes.sort()].join('\n'));
    await side.show(['tasks', 'rm', '--exec-id', 'bg', 'box']);
    await side.show(['tasks', 'kill', '--exec-id', 'bg', '-s', '9', 'box']);
    await events.until(/\/tasks\/exit .*"id":"bg"/);
    await side.show(['tasks', 'rm', '--exec-id', 'bg', 'box']);
    await side.show(['tasks', 'rm', '--exec-id', 'bg', 'box']);
    await side.show(['tasks', 'kill', '--exec-id', 'bg', 'box']);
    await side.exec('box', [], 'cat /made');
    const log = join(side.dir, 'exec.log');
    await side.show([
      'tasks',
      'exec',
      '--log-uri',
      `file://${log}`,
      '--exec-id',
      'logged',
      'box',
      '--',
      'sh',
      '-c',
      'echo one; exit 2',
    ]);
    side.note(existsSync(log) ? readFileSync(log, 'utf8') : 'no log');
    await side.exec('box', ['--fifo-dir', join(side.dir, 'fifos')], 'echo through');
  });
  t.regex(said, /\/dev\/pts\/0\nexit 4\n/);
  t.regex(said, /\n24 80\ngot a line\nexit 0\n/);
  t.regex(said, /interrupted\nexit 7\n/);
  t.regex(said, /\nmade\nheard\nexit 0\n/);
  t.regex(said, /\nthrough\nheard\nexit 0\n/);
});

test('kill: signals by name and number, --all, and of what is not there', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const events = await side.events();
    const trap =
      'for s in HUP USR1 TERM; do trap "echo $s >> /got" $s; done; echo up >> /got; while :; do sleep 0.05; done';
    await side.running('box', ['sh', '-c', trap]);
    const got = async (text: string) => {
      const wait = `until grep -q ${text} /got; do sleep 0.05; done`;
      await side.must(['tasks', 'exec', '--exec-id', `wait${text}`, 'box', 'sh', '-c', wait]);
    };
    await got('up');
    for (const [flags, name] of [
      [[], 'TERM'],
      [['-s', 'SIGHUP'], 'HUP'],
      [['-s', '10'], 'USR1'],
    ] as const) {
      await side.show(['tasks', 'kill', ...flags, 'box']);
      await got(name);
    }
    await side.exec('box', [], 'cat /got');
    await side.show(['tasks', 'kill', '-s', 'SIGNONSENSE', 'box']);
    await side.show(['tasks', 'kill', '-s', '0', 'box']);
    await side.show(['tasks', 'kill', '--exec-id', 'none', 'box']);
    await side.show(['tasks', 'kill', 'nobox']);
    await side.show(['tasks', 'kill']);
    await side.show(['tasks', 'exec', '-d', '--exec-id', 'other', 'box', 'sleep', '1000']);
    await side.show(['tasks', 'kill', '-a', '-s', 'SIGKILL', 'box']);
    await events.until(/\/tasks\/exit .*"id":"box"/);
    await events.until(/\/tasks\/exit .*"id":"other"/);
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'kill', '-s', 'SIGKILL', 'box']);
    await side.show(['tasks', 'exec', '--exec-id', 'late', 'box', 'true']);
    await side.show(['tasks', 'ps', 'box']);
    await side.show(['tasks', 'pause', 'box']);
    await side.show(['tasks', 'resume', 'box']);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['tasks', 'kill', 'box']);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['tasks', 'ps', 'box']);
    await side.show(['tasks', 'pause', 'box']);
    await side.show(['tasks', 'metrics', 'box']);
    await side.show(['tasks', 'attach', 'box']);
    await side.show(['tasks', 'exec', '--exec-id', 'late', 'box', 'true']);
  });
  t.regex(said, /\nup\nTERM\nHUP\nUSR1\nheard\nexit 0\n/);
  t.regex(said, /\nbox PID-OF-box STOPPED\n/);
  t.regex(said, /process already finished: not found\nexit 1\n/);
});

test('pause and resume', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const events = await side.events();
    await side.running('box', ['sh', '-c', 'while :; do sleep 0.05; done']);
    await side.show(['tasks', 'pause', 'box']);
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'pause', 'box']);
    await side.show(['tasks', 'exec', '--exec-id', 'frozen', 'box', 'true']);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['tasks', 'resume', 'box']);
    await side.show(['tasks', 'resume', 'box']);
    await side.show(['tasks', 'ls']);
    await side.exec('box', [], 'echo thawed');
    await side.show(['tasks', 'pause', 'box']);
    // A frozen container dies of the signal once it is thawed.
    await side.show(['tasks', 'kill', '-s', 'SIGKILL', 'box']);
    await side.ctr(['tasks', 'resume', 'box']);
    await events.until(/\/tasks\/exit .*"id":"box"/);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['tasks', 'pause', 'nobox']);
    await side.show(['tasks', 'resume', 'nobox']);
    side.note(events.topics(/\/tasks\/(paused|resumed)/).join(' '));
  });
  t.regex(said, /\nbox PID-OF-box PAUSED\n/);
  t.regex(said, /\nthawed\nheard\nexit 0\n/);
});

test('ps and metrics', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('box', ['sleep', '1000'], ['--memory-limit', '67108864']);
    await side.show(['tasks', 'ps', 'box']);
    await side.must(['tasks', 'exec', '-d', '--exec-id', 'second', 'box', 'sleep', '1000']);
    side.note(numbers((await side.ctr(['tasks', 'ps', 'box'])).stdout));
    side.note(numbers((await side.ctr(['tasks', 'metrics', 'box'])).stdout));
    const { stdout } = await side.ctr(['tasks', 'metrics', '--format', 'json', 'box']);
    const figures = JSON.parse(stdout);
    // What is 0 is left out, and times are at first.
    side.note(Object.keys(figures).join(' '));
    side.note(Object.keys(figures.memory).join(' '));
    side.note(`limit ${figures.memory.usage.limit}, pids ${figures.pids.current}`);
    await side.show(['tasks', 'metrics', '--format', 'nonsense', 'box']);
    await side.show(['tasks', 'metrics', 'nobox']);
    await side.show(['tasks', 'ps', 'nobox']);
  });
  t.regex(said, /\nlimit 67108864, pids 2\n/);
  t.regex(said, /PID INFO\nPID-OF-box -\n/);
});

test('start, attach and delete of a container that was created', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    const events = await side.events();
    await side.show(['tasks', 'start', 'none']);
    await side.show([
      'containers',
      'create',
      image,
      'made',
      '--',
      'sh',
      '-c',
      'echo up; read line; echo got $line; exit 3',
    ]);
    await side.show(['tasks', 'attach', 'made']);
    await side.talk(['tasks', 'start', 'made'], [{ after: /up/, input: 'a line\n' }]);
    await side.show(['tasks', 'ls']);
    const file = join(side.dir, 'pid');
    await side.show([
      'containers',
      'create',
      image,
      'box',
      '--',
      'sh',
      '-c',
      'while :; do read line; echo "got $line"; test "$line" = end && exit 6; done',
    ]);
    await side.show(['tasks', 'start', '-d', '--pid-file', file, 'box']);
    side.hide(readFileSync(file, 'utf8'), 'PID-OF-box');
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'start', 'box']);
    await side.show(['tasks', 'ls', '-q']);
    // What was read before somebody attached is lost or not; whoever attaches sees what comes after.
    await side.talk(
      ['tasks', 'attach', 'box'],
      [
        { after: /^/, input: 'one\n' },
        { after: /got one/, input: 'end\n' },
      ],
    );
    await side.show(['tasks', 'ls']);
    await side.ctr(['tasks', 'rm', 'box']);
    await side.show(['tasks', 'start', '--null-io', '-d', 'box']);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['tasks', 'rm', '--force', 'box']);
    const log = join(side.dir, 'log');
    await side.show(['containers', 'create', image, 'logs', 'echo', 'into a file']);
    await side.show(['tasks', 'start', '--log-uri', `file://${log}`, 'logs']);
    side.note(readFileSync(log, 'utf8'));
    await side.show(['tasks', 'start', '--null-io', 'logs']);
    // Its output goes nowhere that is read, and its exit is waited for by nobody.
    await side.must(['tasks', 'start', '-d', '--null-io', '--pid-file', file, 'logs']);
    await events.until(new RegExp(`/tasks/exit .*"pid":${readFileSync(file, 'utf8')}\\b`));
    await side.show(['tasks', 'rm', 'logs']);
    await side.running('one');
    await side.running('two');
    await side.show(['tasks', 'rm', 'one', 'nothing', 'two']);
    await side.show(['tasks', 'rm', '-f', 'one', 'nothing', 'two']);
    await side.show(['tasks', 'rm']);
    await side.show(['tasks', 'ls']);
  });
  t.regex(said, /up\ngot a line\nexit 3\n/);
  t.regex(said, /got one\ngot end\nexit 6\n/);
  t.regex(said, /\ninto a file\n/);
});

test('checkpoint gives the answer of who cannot', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('box');
    await side.show([
      'tasks',
      'checkpoint',
      '--image-path',
      join(side.dir, 'image'),
      '--work-path',
      join(side.dir, 'work'),
      'box',
    ]);
    await side.show(['tasks', 'checkpoint', 'nobox']);
    await side.show(['tasks', 'ls']);
  });
  t.regex(said, /box PID-OF-box RUNNING\n/);
});
