/** More frames in a second than an honest client sends, and as many as one may: a flood ends its own connection, and only that. */
import test from 'ava';
import { clean, serves } from './aftermath.ts';
import { frameFlag, frameType } from './http2/frames.ts';
import { call, data, fieldsOf, frame, greeting, headers, RawPeer, settings, u32 } from './raw-peer.ts';
import { contract, openRig, until } from './rig.ts';

const nothing = Buffer.alloc(0);

const floods: Record<string, (at: number) => Uint8Array> = {
  PING: () => frame(frameType.ping, 0, 0, Buffer.alloc(8)),
  SETTINGS: () => settings,
  'SETTINGS acknowledgements': () => frame(frameType.settings, frameFlag.ack, 0),
  PRIORITY: () => frame(frameType.priority, 0, 1, Buffer.from([0, 0, 0, 3, 1])),
  WINDOW_UPDATE: () => frame(frameType.windowUpdate, 0, 0, u32(1)),
  'unknown frames': () => frame(0x55, 0, 0),
  'empty DATA': () => data(1, nothing),
  'RST_STREAM of what has ended': () => frame(frameType.rstStream, 0, 1, u32(8)),
};

for (const [name, make] of Object.entries(floods)) {
  test.serial(`a flood of ${name} ends the connection, and only that`, async (t) => {
    const rig = await openRig();
    t.teardown(() => rig.close());
    const peer = new RawPeer(await rig.connect());
    peer.send(
      greeting,
      name === 'RST_STREAM of what has ended' ? call(1, 'Unary') : headers(1, fieldsOf(`/${contract}/Both`)),
    );
    peer.send(...Array.from({ length: 20_100 }, (_, at) => make(at)));
    await until(() => peer.goaway !== undefined, 'GOAWAY');
    t.is(peer.goaway, 11);
    t.true(await serves(rig));
    await clean(t, rig);
  });
}

test.serial('rapid reset: calls taken back before they were answered', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  const peer = new RawPeer(await rig.connect());
  peer.send(greeting);
  for (let at = 0; at < 1100; at++)
    peer.send(call(1 + 2 * at, 'Hang'), frame(frameType.rstStream, 0, 1 + 2 * at, u32(8)));
  await until(() => peer.goaway !== undefined, 'GOAWAY');
  t.is(peer.goaway, 11);
  t.true(await serves(rig));
  await clean(t, rig);
});

test.serial('five thousand reads cancelled in the middle are an honest client', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  const peer = new RawPeer(await rig.connect());
  peer.send(greeting);
  for (let at = 0; at < 5000; at++) {
    const id = 1 + 2 * at;
    peer.send(call(id, 'Many', Buffer.from('3 32768')));
    if (at % 50 === 49) await until(() => peer.field(id, ':status') === '200', 'an answer');
    peer.send(frame(frameType.windowUpdate, 0, 0, u32(98_304)));
    if (at % 50 === 49)
      for (let back = 49; back >= 0; back--) peer.send(frame(frameType.rstStream, 0, id - 2 * back, u32(8)));
  }
  peer.send(call(100_001, 'Unary'));
  t.is(await peer.ends(100_001), 'status 0');
  t.is(peer.goaway, undefined);
  peer.socket.destroy();
  await clean(t, rig);
});

test.serial('an allowance is for a second', async (t) => {
  const rig = await openRig();
  t.teardown(() => rig.close());
  const peer = new RawPeer(await rig.connect());
  peer.send(greeting);
  for (let second = 0; second < 3; second++) {
    peer.send(
      ...Array.from({ length: 15_000 }, () => frame(frameType.priority, 0, 1, Buffer.from([0, 0, 0, 3, 1]))),
      call(1 + 2 * second, 'Unary'),
    );
    t.is(await peer.ends(1 + 2 * second), 'status 0');
    rig.server.tick(performance.now());
  }
  peer.socket.destroy();
  await clean(t, rig);
});
