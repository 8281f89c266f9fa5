/** How a generation ends: it is asked to, in its time, and then its worker is ended, if that is its own. */
import { type Generation, messageOf } from './generation.ts';
import type { Unit } from './unit.ts';

/** One that never served, or serves no more: its worker is ended as it is. */
export async function discard(unit: Unit, generation: Generation, reason: string): Promise<void> {
  if (!generation.own) return;
  generation.expected = true;
  if (!(await generation.handle.terminate(reason))) unit.world.unstoppable(unit, generation.handle);
}

/** One that serves is told to stop. */
export async function stopGeneration(unit: Unit, generation: Generation, reason: string): Promise<void> {
  generation.expected = true;
  try {
    if (!generation.handle.gone)
      await generation.handle.call('stop', [unit.id], generation.build.manifest.deadlines.stopMs);
  } catch (error) {
    unit.world.log('warn', 'plugin did not stop as asked', { plugin: unit.id, error: messageOf(error) });
  }
  await discard(unit, generation, reason);
}

/** One that has been replaced finishes what it runs before. */
export async function drain(unit: Unit, old: Generation): Promise<void> {
  const { stopMs } = old.build.manifest.deadlines;
  unit.draining.add(old);
  try {
    await old.handle.call('release', [unit.id], stopMs);
    await old.handle.call('drained', [unit.id], Number.POSITIVE_INFINITY);
    await old.handle.call('stop', [unit.id], stopMs);
  } catch (error) {
    const fields = { plugin: unit.id, generation: old.number, error: messageOf(error) };
    if (!old.expected) unit.world.log('warn', 'old generation ended badly', fields);
  }
  await discard(unit, old, 'replaced');
  unit.draining.delete(old);
}
