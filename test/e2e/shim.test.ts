/** `ctr shim`, which talks to the shim of a container past the daemon. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { usePair } from '../helpers/pair.ts';

const { test, both } = usePair();

test('state of a shim that runs', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('box');
    await side.show(['shim', '--id', 'box', 'state']);
    await side.show(['tasks', 'pause', 'box']);
    await side.show(['shim', '--id', 'box', 'state']);
    await side.show(['tasks', 'resume', 'box']);
    await side.show(['shim', '--id', 'none', 'state']);
    await side.show(['shim', 'state']);
    await side.show(['shim', '--id', 'box', 'start']);
    await side.show(['shim', '--id', 'box', 'delete']);
    await side.show(['tasks', 'ls']);
  });
  t.regex(said, /"status": 2/);
});

test('state of a shim whose container has ended, and of one that is gone', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const events = await side.events();
    await side.running('box');
    const spec = join(side.dir, 'process.json');
    writeFileSync(spec, JSON.stringify({ args: ['/bin/true'], cwd: '/', user: { uid: 0, gid: 0 } }));
    // A ctr of this age names the exec and not the task, which is for the shim to say.
    await side.show(['shim', '--id', 'box', 'exec', '--spec', spec, 'second']);
    await side.show(['shim', '--id', 'box', 'exec', '--spec', join(side.dir, 'none'), 'second']);
    await side.must(['tasks', 'kill', '-s', 'SIGKILL', 'box']);
    await events.until(/\/tasks\/exit .*"id":"box"/);
    await side.show(['shim', '--id', 'box', 'state']);
    await side.show(['shim', '--id', 'box', 'delete']);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['shim', '--id', 'box', 'state']);
    await side.show(['tasks', 'ls']);
    await side.show(['containers', 'rm', 'box']);
    side.note(`shims ${side.shims('box').length}, bundle ${existsSync(side.bundle('box'))}`);
  });
  t.regex(said, /"status": 3,/);
  t.regex(said, /shims 0, bundle false\n/);
});

test('a shim that does not answer holds nobody else, and answers again when it can', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    await side.running('hung');
    await side.running('well');
    const list = async (): Promise<void> => {
      const lines = (await side.must(['tasks', 'ls'])).split('\n').sort();
      // containerd forgets the pid along with the state; ours knows it still.
      side.note(lines.join('\n').replace(/^hung +\d+ +UNKNOWN/m, 'hung UNKNOWN'));
    };
    const [shim] = side.shims('hung');
    process.kill(shim!, 'SIGSTOP');
    try {
      await list();
      await side.exec('well', [], 'echo still');
      await side.show(['tasks', 'rm', '-f', 'well']);
    } finally {
      process.kill(shim!, 'SIGCONT');
    }
    await list();
    await side.exec('hung', [], 'echo again');
  });
  t.regex(said, /\nhung UNKNOWN\nwell PID-OF-well RUNNING\n/);
  t.regex(said, /\nstill\nheard\nexit 0\n/);
  t.regex(said, /\nhung PID-OF-hung RUNNING\n/);
  t.regex(said, /\nagain\nheard\nexit 0\n/);
});
