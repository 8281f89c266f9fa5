/**
 * `ctr` with snapshots, events and plugins, as an operator types it; and, where a containerd of the same API is installed, the same commands against it: every
 * line that is printed must be the same, paths, ids and times aside.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { run } from '../helpers/command.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { rootTest } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';

const script = `
snapshots ls
snapshots prepare a
snapshots prepare a
snapshots prepare b nope
snapshots mounts /m a
snapshots info a
snapshots info zz
snapshots commit base a
snapshots ls
snapshots usage
snapshots prepare b base
snapshots mounts /m b
snapshots view v base
snapshots label v containerd.io/gc.root=x
snapshots mounts /m v
snapshots commit c b
snapshots commit c v
snapshots view v2 c
snapshots label v2 containerd.io/gc.root=x
snapshots mounts /m v2
snapshots mounts /m c
snapshots tree
snapshots label base k=v
snapshots label base k=
snapshots rm base
snapshots rm c
snapshots rm zz
snapshots rm v v2 c base
snapshots ls
snapshots --snapshotter native prepare n
snapshots --snapshotter native mounts /m n
snapshots --snapshotter native ls
snapshots --snapshotter nope ls
snapshots --snapshotter native rm n
-n ../x snapshots info a
-n other snapshots prepare x
-n other snapshots rm x
plugins ls id==overlayfs
plugins ls id==nothing
`;

/** Views have no label that holds them: the collection that follows a start would take one between two commands of the script, of either daemon. */
const collectLater = (plugin: string): string => `[plugins."${plugin}"]
mutation_threshold = 0
startup_delay = "24h"
`;

/** What an operator sees of the script, and what a bystander hears meanwhile. */
async function transcript(address: string): Promise<{ screen: string; events: string }> {
  const ctr = (...args: string[]) => run('ctr', ['--address', address, ...args]);
  const listener = spawn('ctr', ['--address', address, 'events'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let events = '';
  listener.stdout.setEncoding('utf8').on('data', (text: string) => {
    events += text;
  });
  const heard = async (text: string, again: () => Promise<unknown>): Promise<void> => {
    for (let tries = 0; tries < 200 && !events.includes(text); tries++) {
      await again();
      await sleep(20);
    }
  };
  // The subscription stands when something is heard of it.
  await heard('/namespaces/create', () => ctr('namespaces', 'create', `mark${Math.random().toString(36).slice(2)}`));
  await ctr('namespaces', 'create', 'begin');
  let screen = '';
  for (const line of script.trim().split('\n')) {
    const { code, stdout, stderr } = await ctr(...line.split(' '));
    screen += `$ ctr ${line}\n${stdout}${stderr}exit ${code}\n`;
  }
  await ctr('namespaces', 'create', 'end');
  await heard('"name":"end"', async () => {});
  const gone = new Promise((resolve) => listener.once('exit', resolve));
  listener.kill();
  await gone;
  const lines = events.split('\n');
  const at = (name: string): number => lines.findIndex((line) => line.includes(`"name":"${name}"`));
  return { screen: plain(screen), events: plain(`${lines.slice(at('begin') + 1, at('end')).join('\n')}\n`) };
}

function plain(text: string): string {
  return (
    text
      .replace(/\/[^\s,:=]*\/(io\.containerd\.snapshotter\.v1\.\w+)\/snapshots\/\d+/g, 'ROOT/$1/snapshots/N')
      .replace(/\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z| \+0000 UTC)/g, 'TIME')
      .replace(/(default|other)\/\d+\//g, '$1/N/')
      // ctr prints labels in no order.
      .replace(/^[^\s,=]+=[^\s,]*(?:,[^\s,=]+=[^\s,]*)+$/gm, (labels) => labels.split(',').sort().join(','))
  );
}

rootTest('ctr snapshots, events and plugins', async (t) => {
  t.timeout(180_000);
  const daemon = await useDaemon(t, { config: `version = 3\n${collectLater('troupe.records.v1.records')}` });
  const ours = await transcript(daemon.address);
  // What must hold without anybody to compare with.
  t.regex(
    ours.screen,
    /\$ ctr snapshots mounts \/m b\nmount -t overlay overlay \/m -o index=off,workdir=ROOT\S+\/work,upperdir=ROOT\S+\/fs,lowerdir=ROOT\S+\/fs\n/,
  );
  t.regex(ours.screen, /ctr: snapshot "a": already exists\n/);
  t.regex(ours.screen, /ctr: parent snapshot nope does not exist: not found\n/);
  t.regex(ours.screen, /ctr: failed to remove "base": cannot remove snapshot with child: failed precondition\n/);
  t.regex(ours.screen, /io\.containerd\.snapshotter\.v1 +overlayfs +linux\/\w+ +ok/);
  t.regex(ours.events, /default \/snapshot\/prepare {"key":"b","parent":"base"}\n/);
  const theirs = await containerd(t);
  if (theirs === undefined) return;
  const reference = await transcript(theirs);
  t.is(ours.screen, reference.screen);
  t.is(ours.events, reference.events);
});

/** A containerd 1.6 of its own; undefined where there is none. */
async function containerd(t: ExecutionContext): Promise<string | undefined> {
  const version = await run('containerd', ['--version']).catch(() => undefined);
  if (version === undefined || !/ v?1\.6\./.test(version.stdout)) {
    t.log('not compared: no containerd 1.6 is installed');
    return undefined;
  }
  const dir = useScratch(t, 'containerd');
  const address = join(dir, 'c.sock');
  for (const name of ['root', 'state']) mkdirSync(join(dir, name));
  const config = `version = 2
root = ${JSON.stringify(join(dir, 'root'))}
state = ${JSON.stringify(join(dir, 'state'))}
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = ${JSON.stringify(address)}
[ttrpc]
address = ${JSON.stringify(`${address}.ttrpc`)}
[plugins."io.containerd.internal.v1.opt"]
path = ${JSON.stringify(join(dir, 'opt'))}
${collectLater('io.containerd.gc.v1.scheduler')}`;
  writeFileSync(join(dir, 'config.toml'), config);
  const child = spawn('containerd', ['--config', join(dir, 'config.toml')], { stdio: ['ignore', 'ignore', 'pipe'] });
  const exit = new Promise((resolve) => child.once('exit', resolve));
  t.teardown(async () => {
    child.kill();
    await exit;
  });
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('successfully booted')) resolve();
    });
    void exit.then(() => reject(new Error('containerd ended before it served')));
  });
  return address;
}
