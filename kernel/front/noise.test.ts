/** Good conversations with bytes changed, dropped and doubled: whatever they say then, it is no defect of ours, and nothing of it is left. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { duplexPair } from 'node:stream';
import test from 'ava';
import { frame, call, data, fieldsOf, greeting, headers, message, settings } from './raw-peer.ts';
import { frameType } from './http2/frames.ts';
import { contract, openRig, until } from './rig.ts';

/** xorshift: the same noise in every run. */
function noise(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const conversation = Buffer.concat([
  greeting,
  call(1, 'Unary', Buffer.from('hello')),
  headers(3, fieldsOf(`/${contract}/Both`, [['containerd-namespace', 'default']])),
  data(3, message(Buffer.from('one'))),
  frame(frameType.ping, 0, 0, Buffer.alloc(8)),
  call(5, 'Many', Buffer.from('3 100')),
  data(3, message(Buffer.alloc(300)), true),
  settings,
  frame(frameType.windowUpdate, 0, 0, Buffer.from([0, 0, 1, 0])),
  headers(7, fieldsOf(`/${contract}/Sum`)),
  data(7, Buffer.concat([message(Buffer.alloc(10)), message(Buffer.alloc(20))])),
  frame(frameType.rstStream, 0, 7, Buffer.from([0, 0, 0, 8])),
  call(9, 'Fail', Buffer.from('{"code":"NotFound","message":"x"}')),
]);

test.serial('three thousand of them', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  const random = noise(20_111_111);
  for (let round = 0; round < 3000; round++) {
    const [client, server] = duplexPair();
    client.on('error', () => {});
    client.resume();
    rig.server.accept(server, { kind: 'unix', describe: () => ({}) });
    const bytes = Buffer.from(conversation);
    // The preface is left alone: behind it is where it gets interesting.
    for (let change = random(6); change > 0; change--) bytes[24 + random(bytes.length - 24)] = random(256);
    const from = 24 + random(bytes.length - 24);
    const parts = [
      bytes.subarray(0, from),
      random(4) === 0 ? bytes.subarray(from - random(20), from) : Buffer.alloc(0),
      bytes.subarray(from + (random(4) === 0 ? random(20) : 0)),
    ];
    for (const part of parts) client.write(part);
    await new Promise((resolve) => setImmediate(resolve));
    client.destroy();
    server.destroy();
    if (round % 100 === 0) rig.server.tick(performance.now());
  }
  await until(
    () => rig.server.connections === 0 && rig.dispatcher.running === 0 && rig.router.pending === 0,
    'nothing is left',
  );
  t.is(rig.server.memory, 0);
  const defects = rig.log.filter(({ fields }) => /Error:|internal error/.test(String(fields.reason)));
  t.deepEqual(defects, []);
});

/** With 40 descriptors and all of them in use: connections are closed at once, and served again when there are some. */
const starving = `
  const { openRig } = await import(process.argv[1]);
  const { closeSync, openSync } = await import('node:fs');
  const rig = await openRig();
  const held = [];
  try { for (;;) held.push(openSync('/dev/null', 'r')); } catch (error) { console.log(error.code, rig.address); }
  process.stdin.once('data', () => { for (const fd of held) closeSync(fd); console.log('released'); });
  process.stdin.on('end', async () => { await rig.close(); process.exit(); });
`;

test.serial(
  'too many open files: no connection hangs, no loop spins, and calls are served when it is over',
  async (t) => {
    const script = `ulimit -n 60; exec "$0" --input-type=module -e "$1" "$2"`;
    const child = spawn(
      '/bin/sh',
      ['-c', script, process.execPath, starving, new URL('./rig.ts', import.meta.url).href],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    t.teardown(() => child.kill('SIGKILL'));
    let said = '';
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    await until(() => said.includes('\n'), 'it has used up its descriptors');
    const [code, address = ''] = said.trim().split(' ');
    t.is(code, 'EMFILE');
    let closed = 0;
    for (let each = 0; each < 20; each++) {
      connect(address)
        .on('error', () => {})
        .on('close', () => {
          closed += 1;
        })
        .resume();
    }
    await until(() => closed === 20, 'all are closed');
    child.stdin.write('go\n');
    await until(() => said.includes('released'), 'it has some again');
    const socket = connect(address);
    socket.write(Buffer.concat([greeting, call(1, 'Unary', Buffer.from('back again'))]));
    let answer = '';
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString('latin1');
    });
    await until(() => answer.includes('back again'), 'a call is answered');
    socket.destroy();
    child.stdin.end();
    await once(child, 'exit');
  },
);
