/** Imports its image with the real ctr, unpacks it or not, tags it, removes the tag, removes the image. */
import type { Turn } from '../turn.ts';

export async function imports(turn: Turn): Promise<void> {
  const { random } = turn;
  const number = Number(turn.name.split('-').at(-1));
  const { archives } = turn.ground;
  // Each client its own: what one removes the other must not be importing.
  const archive = archives[number % archives.length]!;
  const image = (name: string) => turn.object('image', name);
  const { digest, name } = archive;
  const unpacked = random.chance(0.7);
  const how = unpacked ? ['--snapshotter', 'overlayfs'] : ['--no-unpack'];
  await turn.askInSteps(
    'ctr images import',
    [{ object: image(name), state: { digest, ...(unpacked && { unpacked }) } }],
    () => turn.ctr('images', 'import', ...how, archive.path),
  );
  const tag = `${name}-${turn.unique('tag')}`;
  await turn.ask('ctr images tag', [{ object: image(tag), state: { digest } }], () =>
    turn.ctr('images', 'tag', name, tag),
  );
  if (random.chance(0.5))
    await turn.ask('ctr images rm --sync', [{ object: image(name), state: null }], () =>
      turn.ctr('images', 'rm', '--sync', name),
    );
  await turn.ask('ctr images rm --sync', [{ object: image(tag), state: null }], () =>
    turn.ctr('images', 'rm', '--sync', tag),
  );
}
