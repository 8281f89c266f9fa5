/**
 * dockerd as it is, as a client: what people do with docker, shown the same as over a containerd; and containers that outlive dockerd, our daemon, and reloads of
 * the plugins that they go through.
 */
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { run } from '../helpers/command.ts';
import { Daemon } from '../helpers/daemon.ts';
import { Dockerd } from '../helpers/dockerd.ts';
import { busyboxLayer, writeDockerArchive } from '../helpers/image.ts';
import { Peer } from '../helpers/peer.ts';
import { lacking, unlessLacking } from '../helpers/privilege.ts';
import { mountsBelow, scratchBase } from '../helpers/scratch.ts';
import { shimsOf } from '../helpers/shims.ts';
import { useClient } from '../helpers/trouped.ts';

const needs = [
  'root',
  'mount',
  'cgroup',
  'program dockerd',
  'program runc',
  'program busybox',
  'program script',
] as const;
const lack = lacking(...needs) ?? Dockerd.lacking();
const dockerTest = unlessLacking(() => lack);

interface Side {
  readonly name: 'troupe' | 'containerd';
  readonly server: Daemon | Peer;
  readonly dockerd: Dockerd;
}

const dir = mkdtempSync(join(scratchBase(), 'troupe-docker-'));
// Without a test to run there are no hooks.
process.once('exit', () => {
  if (mountsBelow(dir).length === 0) rmSync(dir, { recursive: true, force: true });
});
const daemon = new Daemon(join(dir, 'troupe'), {});
const sides: Side[] = [];

function sideOf(name: Side['name'], server: Daemon | Peer): Side {
  const dockerd = new Dockerd(
    join(dir, `docker-${name}`),
    `troupe-docker-${process.pid}-${name}`,
    () => server.address,
  );
  return { name, server, dockerd };
}

test.before(async (t) => {
  if (lack !== undefined) return;
  t.timeout(120_000);
  const archive = join(dir, 'image.tar');
  writeDockerArchive(archive, { name: 'box:1', layers: [busyboxLayer] });
  sides.push(sideOf('troupe', daemon));
  if (await Peer.available()) sides.push(sideOf('containerd', new Peer(join(dir, 'containerd'))));
  await Promise.all(
    sides.map(async ({ server, dockerd }) => {
      await server.start();
      await dockerd.start();
      await dockerd.must('load', '--input', archive);
    }),
  );
});

test.after.always('nothing is left behind', async (t) => {
  const left: string[] = [];
  for (const { name, server, dockerd } of sides) {
    await dockerd.clear();
    await dockerd.stop();
    await server.stop();
    await dockerd.removeTraces();
    const shims = shimsOf(server.address);
    for (const pid of shims) process.kill(pid, 'SIGKILL');
    if (name === 'troupe') left.push(...shims.map((pid) => `shim ${pid}`));
  }
  const mounts = mountsBelow(dir);
  for (const mount of mounts.toReversed()) await run('umount', ['-l', mount]);
  left.push(...mounts);
  rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  t.deepEqual(left, []);
  // Of clients' mistakes shims write errors of their own.
  const errors = daemon.log.filter((line) => line.includes('level=error') && !line.includes('msg=shim '));
  t.deepEqual(errors, []);
});

/** Lines for a shell, `docker` and `trapped NAME` among them, on both sides at once; what they show must be the same. Answers it. */
async function both(t: ExecutionContext, script: string): Promise<string> {
  t.timeout(120_000);
  const [ours, theirs] = await Promise.all(sides.map((side) => transcript(side, script)));
  if (theirs === undefined) t.log('not compared: no containerd 1.6 is installed');
  else t.is(ours, theirs);
  return ours!;
}

async function transcript({ dockerd }: Side, script: string): Promise<string> {
  let text = '';
  for (const line of script.split('\n').map((each) => each.trim())) {
    if (line === '') continue;
    const [command, name] = line.split(' ');
    if (command === 'trapped') {
      await trapped(dockerd, name!, Number(line.split(' ')[2]));
      continue;
    }
    const { code, signal, stdout, stderr } = await run('timeout', ['-s', 'KILL', '60', 'sh', '-c', line], {
      env: { ...dockerd.env, PATH: `/usr/bin:${process.env.PATH}` },
      timeoutMs: 90_000,
    });
    text += `$ ${line}\n${stdout}${stderr}${code === 0 ? '' : `exit ${code ?? signal}\n`}`;
  }
  return (
    text
      .replaceAll('\r', '')
      .replace(/\b[0-9a-f]{64}\b/g, 'ID')
      // The client waits for the end of a container before it starts it, and sometimes says that it gave up when the start has failed.
      .replace(/^.*error waiting for container: context canceled.*\n/gm, '')
      .replace(/^IPv4 forwarding is disabled\..*\n/gm, '')
  );
}

/** Runs a container in the background that ends with `code` when it is told to, and is ready for that. */
async function trapped(dockerd: Dockerd, name: string, code: number, ...flags: string[]): Promise<number> {
  const line = `trap "exit ${code}" TERM; trap "echo told" USR1; echo ready; while :; do sleep 0.05; done`;
  await dockerd.must('run', '-d', '--network', 'none', '--name', name, ...flags, 'box:1', 'sh', '-c', line);
  await dockerd.printed(name, 'ready');
  return Number(await dockerd.must('inspect', '-f', '{{.State.Pid}}', name));
}

/** Ends a container's process behind everybody's back. Nothing tells when it has gone. */
async function end(pid: number): Promise<void> {
  process.kill(pid, 'SIGTERM');
  while (existsSync(`/proc/${pid}`)) await sleep(10);
}

dockerTest.serial('run: output, exits, users, limits, a terminal, what cannot be run', async (t) => {
  const said = await both(
    t,
    `
    docker run --rm --network none box:1 sh -c 'echo out; echo err >&2; exit 3'
    docker run --rm --network none box:1 nosuch
    docker run --rm --network none box:1 /etc
    echo typed | docker run --rm -i --network none box:1 cat
    docker run --rm --network none --user games -w /etc -e A=b -h named box:1 sh -c 'id; pwd; echo $A; hostname'
    docker run --rm --network none --read-only --ulimit nofile=100 box:1 sh -c 'ulimit -n; touch /x'
    script -qec "docker run --rm -t --network none box:1 sh -c 'tty; test -t 1 && echo terminal; exit 4'" /dev/null
    docker run --network none --name oom --memory 16m --memory-swap 16m box:1 dd if=/dev/zero of=/dev/null bs=100M count=1
    docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' oom
    docker rm oom
    docker create --network none --name made box:1 echo made
    docker start -a made
    docker commit made box:2
    docker run --rm --network none box:2 echo committed
    docker rm made
    docker rmi box:2 | grep -c Deleted
    docker run -d --restart on-failure:2 --network none --name again box:1 sh -c 'exit 6'
    until [ "$(docker inspect -f '{{.State.Status}} {{.RestartCount}}' again)" = 'exited 2' ]; do :; done
    docker rm again
    docker ps -a --format '{{.Names}}'
  `,
  );
  t.regex(said, /\nout\nerr\nexit 3\n/);
  t.regex(said, /executable file not found in \$PATH: unknown\.\nexit 127\n/);
  t.regex(said, /\/dev\/pts\/0\nterminal\nexit 4\n/);
  t.regex(said, /\nexited 137\n/);
  // Shims tell of the two in either order, and dockerd takes note of the one only before the other: once in a dozen times not, over a containerd as well.
  const { dockerd } = sides[0]!;
  const flags = ['run', '--network', 'none', '--memory', '16m', '--memory-swap', '16m'];
  let oomKilled = false;
  for (let tries = 0; !oomKilled && tries < 4; tries++) {
    await dockerd.docker([...flags, '--name', `oom${tries}`, 'box:1', 'dd', 'if=/dev/zero', 'of=/dev/null', 'bs=100M']);
    oomKilled = (await dockerd.must('inspect', '-f', '{{.State.OOMKilled}}', `oom${tries}`)) === 'true';
  }
  t.true(oomKilled);
  await dockerd.clear();
});

dockerTest.serial('what is done to a container that runs', async (t) => {
  const said = await both(
    t,
    `
    trapped one 9
    docker ps --format '{{.Names}} {{.State}}'
    docker exec one sh -c 'echo in; exit 6'
    docker exec one nosuch
    docker exec -u games -w /etc -e A=b one sh -c 'id; pwd; echo $A'
    echo typed | docker exec -i one cat
    script -qec 'docker exec -t one tty' /dev/null
    docker top one -o pid,comm | grep -o 'sh$'
    docker stats --no-stream --format '{{.Name}}' one
    docker pause one
    docker ps --format '{{.Names}} {{.State}}'
    docker exec one true
    docker unpause one
    docker update --memory 64m --memory-swap 64m one
    docker inspect -f '{{.HostConfig.Memory}}' one
    docker kill -s USR1 one
    docker stop one
    docker wait one
    docker start one
    docker exec one sh -c 'until grep -q "^SigCgt.*42..$" /proc/1/status; do :; done'
    docker restart one
    docker kill one
    docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' one
    docker logs one | sort -u
    docker events --since 1 --until $(date +%s.%N) --filter container=one --filter event=create --filter event=start --filter event=die --filter event=pause --filter event=unpause --filter event=restart --filter event=stop --format '{{.Action}} {{.Actor.Attributes.exitCode}}'
    docker rm one
  `,
  );
  t.regex(said, /\none paused\n/);
  t.regex(said, /\$ docker wait one\n9\n/);
  t.regex(said, /\nexited 137\n/);
  t.regex(said, /\ncreate .*\nstart .*\npause .*\nunpause .*\ndie 9\nstop /);
});

dockerTest.serial('containers outlive dockerd, and it finds them', async (t) => {
  t.timeout(120_000);
  const [ours, theirs] = await Promise.all(
    sides.map(async (side) => {
      const { dockerd } = side;
      await trapped(dockerd, 'stays', 9);
      const pid = await trapped(dockerd, 'ends', 5);
      await dockerd.stop('SIGKILL');
      await end(pid);
      await dockerd.start();
      return transcript(
        side,
        `
        docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' stays ends
        docker exec stays sh -c 'echo heard >/proc/1/fd/1'
        docker stop stays
        docker logs stays
        docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' stays
        docker rm stays ends
      `,
      );
    }),
  );
  t.regex(ours!, /\nrunning 0\nexited 5\n/);
  t.regex(ours!, /\nready\nheard\n/);
  t.regex(ours!, /\nexited 9\n/);
  if (theirs !== undefined) t.is(ours, theirs);
});

dockerTest.serial('containers outlive a kill -9 of the daemon, and dockerd is told what ended meanwhile', async (t) => {
  t.timeout(120_000);
  const side = sides[0]!;
  const { dockerd } = side;
  await trapped(dockerd, 'stays', 9);
  const line = 'trap "exit 6" TERM; echo ready; while :; do sleep 0.05; done';
  const attended = dockerd.docker(['run', '--rm', '--network', 'none', '--name', 'fore', 'box:1', 'sh', '-c', line]);
  const pid = await trapped(dockerd, 'ends', 5);
  await dockerd.printed('fore', 'ready');
  await daemon.stop('SIGKILL');
  await end(pid);
  await daemon.start();
  // With it dockerd is known to be connected again.
  t.is(await dockerd.must('wait', 'ends'), '5');
  const said = await transcript(
    side,
    `
    docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' stays ends
    docker exec stays sh -c 'echo heard >/proc/1/fd/1'
    docker pause stays
    docker unpause stays
    docker run --rm --network none box:1 sh -c 'echo after; exit 2'
    docker kill -s TERM fore
    docker stop stays
    docker logs stays
    docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' stays
    docker rm stays ends
  `,
  );
  const { code, stdout } = await attended;
  t.is(code, 6);
  t.is(stdout, 'ready\n');
  t.regex(said, /\nrunning 0\nexited 5\n/);
  t.regex(said, /\nafter\nexit 2\n/);
  t.regex(said, /\nready\nheard\n/);
  t.regex(said, /\nexited 9\n/);
});

dockerTest.serial('tasks, events and containers are reloaded while containers run, start and end', async (t) => {
  t.timeout(120_000);
  const { dockerd } = sides[0]!;
  const kernel = useClient(t, daemon, KernelDefinition);
  const ids = [
    'io.containerd.runtime.v2.task',
    'io.containerd.event.v1.exchange',
    'io.containerd.service.v1.containers-service',
  ];
  const names = ['one', 'two', 'three'];
  for (const [index, name] of names.entries()) await trapped(dockerd, name, 10 + index);
  const waits = names.map((name) => dockerd.must('wait', name));
  let done = false;
  const coming = (async () => {
    const said: string[] = [];
    for (let code = 1; code <= 4; code++) {
      const ran = await dockerd.docker(['run', '--rm', '--network', 'none', 'box:1', 'sh', '-c', `exit ${code}`]);
      said.push(`${ran.code} ${ran.stderr}`.trim());
    }
    done = true;
    return said;
  })();
  for (let round = 0; !done || round < names.length; round++) {
    for (const id of ids) {
      const { outcome, reason } = await kernel.reload({ id, force: true });
      t.is(outcome, 'reloaded', `${id}: ${reason}`);
    }
    if (round < names.length) t.is(await dockerd.must('stop', names[round]!), names[round]!);
  }
  t.deepEqual(await coming, ['1', '2', '3', '4']);
  t.deepEqual(await Promise.all(waits), ['10', '11', '12']);
  t.is(await dockerd.must('ps', '-q'), '');
  await dockerd.clear();
});
