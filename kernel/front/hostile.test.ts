/** Frames and headers as no honest client sends them: each costs its sender only, and has the code that the protocol gives it. */
import test from 'ava';
import { clean, serves } from './aftermath.ts';
import { cases } from './hostile-cases.ts';
import { frameFlag, frameType, preface } from './http2/frames.ts';
import { call, data, type Fields, fieldsOf, frame, greeting, headers, message, RawPeer } from './raw-peer.ts';
import { contract, openRig, until } from './rig.ts';

test('each case, alone on its connection', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  for (const [name, [sent, ends]] of Object.entries(cases)) {
    const peer = new RawPeer(await rig.connect());
    peer.send(greeting, ...sent);
    t.is(await peer.ends(1, name), ends, name);
    if (ends.startsWith('goaway')) await until(() => peer.closed, `${name}: the connection closes`);
    peer.socket.destroy();
  }
  t.true(await serves(rig));
  await clean(t, rig);
});

test('each case, byte by byte', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  for (const [name, [sent, ends]] of Object.entries(cases)) {
    const bytes = Buffer.concat([greeting, ...sent]);
    if (bytes.length > 2000) continue;
    const peer = new RawPeer(await rig.connect());
    peer.socket.setNoDelay();
    for (let at = 0; at < bytes.length && !peer.closed; at++) {
      peer.socket.write(bytes.subarray(at, at + 1));
      if (at % 16 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    t.is(await peer.ends(1, name), ends, name);
    peer.socket.destroy();
  }
  await clean(t, rig);
});

test('what is no HTTP/2', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  for (const bytes of [
    Buffer.from('GET / HTTP/1.1\r\nhost: x\r\n\r\n'),
    Buffer.from([0x16, 3, 1, 0, 200]),
    Buffer.alloc(100),
    Buffer.concat([preface, call(1, 'Unary')]),
    Buffer.concat([preface, frame(frameType.settings, frameFlag.ack, 0)]),
  ]) {
    const peer = new RawPeer(await rig.connect());
    peer.send(bytes);
    t.is(await peer.ends(), 'goaway 1');
    await until(() => peer.closed, 'closed');
  }
  await clean(t, rig);
});

test.serial('a stream that fails before its first message is answered after it, or in a moment', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  const peer = new RawPeer(await rig.connect());
  // Its plugin never comes: the deadline has passed when it is looked at.
  const late: Fields = [['grpc-timeout', '1n']];
  peer.send(
    greeting,
    headers(1, fieldsOf(`/${contract}/Stall`, late)),
    headers(3, fieldsOf(`/${contract}/Stall`, late)),
  );
  await until(() => rig.router.pending === 0, 'both have failed');
  peer.send(data(1, message(Buffer.from('first'))));
  t.is(await peer.ends(1), 'status 4');
  t.is(await peer.ends(3), 'status 4');
  peer.socket.destroy();
  await clean(t, rig);
});
