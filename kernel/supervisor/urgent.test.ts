/** A generation that others wait for goes before them, and not for long. */
import { getPriority, setPriority } from 'node:os';
import { needing } from '../../test/helpers/privilege.ts';
import { threadIdOf } from '../sdk/control-page.ts';
import { booted, caller, health, healthToml, useSupervisor } from './rig.ts';

needing('root').serial(
  'a successor that loops while it starts goes before the others for a second, and no longer',
  async (t) => {
    const usual = getPriority(0);
    t.teardown(() => setPriority(0, usual));
    // As the daemon's kernel stands.
    setPriority(0, usual - 5);
    const slow = {
      toml: healthToml(),
      code: health('return { status: ctx.generation };').replace(
        'return {',
        'for (const end = Date.now() + 4000; ctx.generation > 1 && Date.now() < end; ); return {',
      ),
    };
    const rig = await booted(useSupervisor(t, { slow, caller: caller() }, { niceness: usual }));
    const unit = rig.supervisor.unit('test.v1.health');
    const threadOf = () => (unit.starting === undefined ? 0 : threadIdOf(unit.starting.page));
    const reloading = unit.reload({ force: true });
    await rig.until(() => threadOf() !== 0);
    const thread = threadOf();
    await rig.until(() => getPriority(thread) === usual);
    t.is(threadOf(), thread, 'it is among the others while it still starts');
    t.is((await reloading).outcome, 'reloaded');
  },
);
