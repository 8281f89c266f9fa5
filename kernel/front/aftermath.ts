/** For tests: how it is after a hostile client: others are served, and nothing is left of it. */
import { call, greeting, RawPeer } from './raw-peer.ts';
import { type Rig, until } from './rig.ts';

export async function serves(rig: Rig): Promise<boolean> {
  const peer = new RawPeer(await rig.connect());
  peer.send(greeting, call(1, 'Unary', Buffer.from('still there')));
  const ends = await peer.ends();
  peer.socket.destroy();
  return ends === 'status 0';
}

export async function clean(t: { is(a: unknown, b: unknown): void }, rig: Rig): Promise<void> {
  await until(
    () => rig.server.connections === 0 && rig.dispatcher.running === 0 && rig.router.pending === 0,
    'nothing is left',
  );
  t.is(rig.server.memory, 0);
}
