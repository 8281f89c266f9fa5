/** What one client, or all together, may take: connections, streams, bytes, time. The clock is the test's. */
import test from 'ava';
import { frame, greeting, call, data, fieldsOf, headers, message, RawPeer } from './raw-peer.ts';
import { frameFlag, frameType, preface } from './http2/frames.ts';
import { contract, openRig, type Rig, until } from './rig.ts';
import type { FrontLimits } from './config.ts';

async function rigFor(t: { teardown(fn: () => Promise<void>): void }, limits: Partial<FrontLimits> = {}): Promise<Rig> {
  const rig = await openRig(limits);
  t.teardown(() => rig.close());
  return rig;
}

async function peerOf(rig: Rig): Promise<RawPeer> {
  const peer = new RawPeer(await rig.connect());
  peer.send(greeting);
  return peer;
}

/** As many seconds as the server looks at its calls. */
function later(rig: Rig, ms: number): void {
  for (let tick = 0; tick < 5; tick++) rig.server.tick(performance.now() + ms);
}

async function clean(t: { is(a: unknown, b: unknown): void }, rig: Rig): Promise<void> {
  await until(
    () => rig.server.streams === 0 && rig.dispatcher.running === 0 && rig.router.pending === 0,
    'calls are gone',
  );
  t.is(rig.server.memory, 0);
}

const open = (id: number, method: string) => headers(id, fieldsOf(`/${contract}/${method}`));

test.serial('connections beyond the limit are closed at once; one that ends makes room', async (t) => {
  const rig = await rigFor(t, { maxConnections: 5 });
  const peers = await Promise.all(Array.from({ length: 5 }, () => peerOf(rig)));
  await until(() => rig.server.connections === 5, 'five are open');
  const refused = await Promise.all(Array.from({ length: 20 }, () => peerOf(rig)));
  await until(() => refused.every((peer) => peer.closed), 'twenty are refused');
  t.is(rig.log.filter((line) => line.message === 'connection refused').length, 1);
  peers[0]!.socket.destroy();
  await until(() => rig.server.connections === 4, 'one has left');
  const next = await peerOf(rig);
  next.send(call(1, 'Unary'));
  t.is(await next.ends(), 'status 0');
  for (const peer of [...peers, next]) peer.socket.destroy();
});

test.serial('a connection that does not say what it speaks', async (t) => {
  const rig = await rigFor(t);
  const silent = new RawPeer(await rig.connect());
  const slow = new RawPeer(await rig.connect());
  slow.send(preface.subarray(0, 20));
  const half = new RawPeer(await rig.connect());
  half.send(preface);
  const honest = await peerOf(rig);
  await until(() => rig.server.connections === 4, 'all are open');
  honest.send(call(1, 'Unary'));
  t.is(await honest.ends(), 'status 0');
  rig.server.tick(performance.now());
  t.is(rig.server.connections, 4);
  rig.server.tick(performance.now() + 5000);
  await until(() => silent.closed && slow.closed && half.closed, 'three are closed');
  t.is(rig.server.connections, 1);
  t.deepEqual(rig.log.at(-1)?.fields, { reason: 'no HTTP/2 preface in time', pid: 1 });
  honest.socket.destroy();
});

test.serial('a connection without a call is sent away after half a minute, one with a call is not', async (t) => {
  const rig = await rigFor(t);
  const idle = await peerOf(rig);
  const busy = await peerOf(rig);
  busy.send(call(1, 'Unary'));
  t.is(await busy.ends(), 'status 0');
  await until(() => idle.frames.length >= 3, 'the server has read the SETTINGS');
  rig.server.tick(performance.now() + 31_000);
  await until(() => idle.closed, 'it is closed');
  t.is(idle.goaway, 0);
  busy.send(call(3, 'Unary'));
  t.is(await busy.ends(3), 'status 0');
  busy.socket.destroy();
});

test.serial('streams beyond the limit are refused, and an honest client is told the limit', async (t) => {
  const rig = await rigFor(t, { maxStreams: 100 });
  const peer = await peerOf(rig);
  for (let at = 0; at < 101; at++) peer.send(call(1 + 2 * at, 'Hang'));
  t.is(await peer.ends(201), 'reset 7');
  await until(() => rig.seen.running === 100, 'a hundred run');
  const settings = peer.frames.find((each) => each.type === frameType.settings && each.payload.length > 0)!.payload;
  t.is(settings.readUInt16BE(0), 3);
  t.is(settings.readUInt32BE(2), 100);
  rig.release();
  t.is(await peer.ends(199), 'status 0');
  peer.socket.destroy();
  await clean(t, rig);
});

test.serial('five thousand Waits stay open, and calls go on beside them', async (t) => {
  const rig = await rigFor(t);
  const peer = await peerOf(rig);
  for (let at = 0; at < 5000; at++) peer.send(call(1 + 2 * at, 'Hang'));
  await until(() => rig.seen.running === 5000, 'all run');
  later(rig, 100_000);
  peer.send(call(20_001, 'Unary'));
  t.is(await peer.ends(20_001), 'status 0');
  t.is(rig.server.streams, 5000);
  rig.release();
  await until(() => rig.server.streams === 0, 'all have ended');
  t.is(await peer.ends(1), 'status 0');
  t.is(await peer.ends(9999), 'status 0');
  peer.socket.destroy();
  await clean(t, rig);
});

test.serial(
  'a request that does not come is ended after half a minute; a stream between messages is not',
  async (t) => {
    const rig = await rigFor(t);
    const peer = await peerOf(rig);
    peer.send(
      open(1, 'Unary'),
      open(3, 'Both'),
      data(3, message(Buffer.from('one'))),
      open(5, 'Unary'),
      data(5, message(Buffer.from('x'), 0, 1000)),
    );
    peer.send(
      open(7, 'Unary'),
      data(7, message(Buffer.from('complete, but open'))),
      open(9, 'Both'),
      data(9, message(Buffer.from('x'), 0, 1000)),
    );
    await until(() => peer.body(3).length === 8, 'the stream answers');
    later(rig, 29_000);
    t.is(peer.outcome(1), undefined);
    later(rig, 31_000);
    for (const id of [1, 5, 7, 9]) t.is(await peer.ends(id), 'status 4', String(id));
    peer.send(data(3, message(Buffer.from('two')), true));
    t.is(await peer.ends(3), 'status 0');
    t.is(peer.body(3).length, 16);
    peer.socket.destroy();
    await clean(t, rig);
  },
);

test.serial('a slow message that moves is waited for', async (t) => {
  const rig = await rigFor(t);
  const peer = await peerOf(rig);
  peer.send(open(1, 'Meta'), data(1, message(Buffer.alloc(0), 0, 100_000)));
  await until(() => rig.server.streams === 1, 'it is open');
  let sent = 0;
  for (; sent + 32_000 < 100_000; sent += 32_000) {
    peer.send(
      data(1, Buffer.alloc(16_000)),
      data(1, Buffer.alloc(16_000)),
      frame(frameType.ping, 0, 0, Buffer.alloc(8)),
    );
    const pings = peer.frames.filter((each) => each.type === frameType.ping).length;
    await until(
      () => peer.frames.filter((each) => each.type === frameType.ping).length > pings,
      'the server has read it',
    );
    later(rig, 31_000);
    t.is(peer.outcome(1), undefined);
  }
  peer.send(data(1, Buffer.alloc(100_000 - sent), true));
  t.is(await peer.ends(), 'status 0');
  peer.socket.destroy();
  await clean(t, rig);
});

/** DATA within windows, `bytes` of it, of a message that says it is longer. */
function unfinished(id: number, bytes: number): Buffer[] {
  const frames = [open(id, 'Unary'), data(id, message(Buffer.alloc(0), 0, (16 << 20) - 1))];
  for (let sent = 0; sent < bytes; sent += 16_384) frames.push(data(id, Buffer.alloc(16_384)));
  return frames;
}

test.serial('unfinished messages: a connection has so many bytes, and all together have', async (t) => {
  const rig = await rigFor(t, { connectionMemory: 4 << 20, memory: 10 << 20 });
  const peers: RawPeer[] = [];
  for (let each = 0; each < 4; each++) {
    const peer = await peerOf(rig);
    peers.push(peer);
    for (let at = 0; at < 60; at++) peer.send(...unfinished(1 + 2 * at, 256 << 10));
    const ended = () =>
      Array.from({ length: 60 }, (_, at) => peer.outcome(1 + 2 * at)).filter((outcome) => outcome !== undefined);
    await until(() => ended().length >= 40 || peer.closed, 'most are refused');
    t.true(ended().every((outcome) => outcome === 'status 8'));
    t.true(rig.server.memory <= 10 << 20);
    t.false(peer.closed);
  }
  t.true(rig.server.memory > 8 << 20);
  for (const peer of peers) peer.socket.destroy();
  await clean(t, rig);
});

test.serial('a prefix that promises 16 MiB costs what has come', async (t) => {
  const rig = await rigFor(t);
  const peer = await peerOf(rig);
  for (let at = 0; at < 100; at++)
    peer.send(open(1 + 2 * at, 'Unary'), data(1 + 2 * at, message(Buffer.from('x'), 0, 16 << 20)));
  await until(() => rig.server.memory > 0 && rig.server.streams === 100, 'all are open');
  t.true(rig.server.memory <= 100 * 16_384, String(rig.server.memory));
  peer.socket.destroy();
  await clean(t, rig);
});

test.serial('more than the window of a stream, and of the connection', async (t) => {
  const rig = await rigFor(t);
  const one = await peerOf(rig);
  // `Stall` takes nothing, so its window is not opened again.
  one.send(open(1, 'Stall'));
  for (let sent = 0; sent <= 1 << 20; sent += 16_384) one.send(data(1, message(Buffer.alloc(16_379))));
  t.is(await one.ends(), 'reset 3');
  t.is(one.goaway, undefined);
  one.send(call(3, 'Unary'));
  t.is(await one.ends(3), 'status 0');
  one.socket.destroy();
  rig.release();
  await clean(t, rig);
});

test.serial('a client whose windows are shut gets headers and trailers, and data when it opens them', async (t) => {
  const rig = await rigFor(t);
  const peer = new RawPeer(await rig.connect());
  const shut = Buffer.from([0, 4, 0, 0, 0, 0]);
  peer.send(preface, frame(frameType.settings, 0, 0, shut), call(1, 'Many', Buffer.from('5 1000')));
  await until(() => peer.field(1, ':status') === '200', 'headers');
  peer.send(call(3, 'Fail', Buffer.from('{"code":"NotFound","message":"x"}')));
  t.is(await peer.ends(3), 'status 5');
  t.is(peer.body(1).length, 0);
  for (let byte = 0; byte < 5025; byte++) peer.send(frame(frameType.windowUpdate, 0, 1, Buffer.from([0, 0, 0, 1])));
  t.is(await peer.ends(1), 'status 0');
  t.is(peer.body(1).length, 5025);
  peer.socket.destroy();
  await clean(t, rig);
});

test.serial('a table size that the client takes back is answered before the next headers', async (t) => {
  const rig = await rigFor(t);
  const peer = new RawPeer(await rig.connect());
  peer.send(
    preface,
    frame(frameType.settings, 0, 0, Buffer.from([0, 1, 0, 0, 0, 0])),
    call(1, 'Unary'),
    call(3, 'Unary'),
  );
  t.is(await peer.ends(3), 'status 0');
  const blocks = peer.frames.filter((each) => each.type === frameType.headers).map((each) => each.payload[0]);
  t.is(blocks.filter((first) => first === 0x20).length, 1);
  t.is(blocks[0], 0x20);
  peer.socket.destroy();
});

test.serial('TCP: a peer that is silent is asked, and given up', async (t) => {
  const rig = await rigFor(t);
  const { createServer, connect } = await import('node:net');
  const listener = createServer((socket) => rig.server.accept(socket, { kind: 'tcp', describe: () => ({}) }));
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.teardown(() => void listener.close());
  const { port } = listener.address() as { port: number };
  const peer = new RawPeer(connect(port, '127.0.0.1'));
  peer.send(greeting, call(1, 'Unary'));
  t.is(await peer.ends(), 'status 0');
  for (let second = 0; second < 31; second++) rig.server.tick(performance.now());
  await until(() => peer.frames.some((each) => each.type === frameType.ping && each.flags === 0), 'it is asked');
  peer.send(frame(frameType.ping, frameFlag.ack, 0, Buffer.alloc(8)), call(3, 'Unary'));
  t.is(await peer.ends(3), 'status 0');
  for (let second = 0; second < 39; second++) rig.server.tick(performance.now());
  t.false(peer.closed);
  for (let second = 0; second < 2; second++) rig.server.tick(performance.now());
  await until(() => peer.closed, 'it is given up');
});

test.serial('stopping: new calls are turned away, brief ones that run are answered, the others end', async (t) => {
  const rig = await rigFor(t);
  const peer = await peerOf(rig);
  peer.send(call(1, 'Slow'), headers(5, fieldsOf(`/${contract}/Both`)), data(5, message(Buffer.from('x'))));
  await until(() => rig.seen.running === 1 && peer.body(5).length > 0, 'they run');
  const stopped = rig.server.stop(100_000);
  await until(() => peer.goaway === 0, 'GOAWAY');
  peer.send(call(7, 'Unary'));
  rig.release();
  await until(() => peer.outcome(1) === 'status 0', 'it is answered');
  await stopped;
  await until(() => peer.closed, 'closed');
  t.is(peer.outcome(7), undefined);
  t.is(peer.outcome(5), undefined);
  await clean(t, rig);
});

test.serial('stopping does not wait for calls that wait for something', async (t) => {
  const rig = await rigFor(t);
  const peer = await peerOf(rig);
  peer.send(call(1, 'Hang'));
  await until(() => rig.seen.running === 1, 'it runs');
  await rig.server.stop(1_000_000);
  await until(() => peer.closed && rig.seen.cancelled === 1, 'the connection is closed, and the call with it');
  t.is(peer.outcome(1), undefined);
});
