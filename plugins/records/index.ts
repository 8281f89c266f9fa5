/** The database of the daemon. Opened in activate, by one generation at a time. */
import { join } from 'node:path';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import { definePlugin, Failure, type PluginContext } from 'troupe/plugin';
import { Changes } from './changes.ts';
import type { MigrationFolder } from './migrate.ts';
import { openRecordsHouse, type RecordsConfig, type RecordsHouse } from './house.ts';
import { recordsService } from './service.ts';
import { Standby } from './standby.ts';

/** The kernel hands this plugin the folders of all planned ones. */
type Context = PluginContext<RecordsConfig> & { readonly migrations?: readonly MigrationFolder[] };

/** How long answers have to reach their callers before the daemon ends itself. */
const endDelayMs = 250;

/** Nothing is written to the file any more, and nobody else has had it since. */
interface State {
  readonly closed: true;
}

export default definePlugin<RecordsConfig, State>({
  start(ctx: Context) {
    let house: RecordsHouse | undefined;
    const changes = new Changes();
    const path = join(ctx.root, 'records.db');
    const migrations = ctx.migrations ?? [{ prefix: 'records', dir: join(import.meta.dirname, 'migrations') }];
    let standby = ctx.generation > 1 ? makeReady() : undefined;
    const close = async () => {
      await house?.close();
      house = undefined;
    };
    return {
      serve: {
        [RecordsDefinition.fullName]: recordsService(() => {
          if (house === undefined) throw new Failure('Unavailable', 'records are closed: unavailable');
          return house;
        }, changes),
      },
      activate(state) {
        const ready = standby;
        standby = undefined;
        // After a crash the file is looked into first.
        if (state === undefined) ready?.close();
        house = openRecordsHouse({
          path,
          migrations,
          config: ctx.config,
          handedOver: state !== undefined,
          standby: state === undefined ? undefined : ready,
          log: ctx.log,
          changes,
          busy: ctx.busy,
          onEnd: () => {
            // What is on the disk is not known any more. The next start looks at it; containers live on in their shims.
            setTimeout(() => process.kill(process.pid, 'SIGKILL'), endDelayMs);
          },
        });
      },
      async suspend() {
        await house?.close({ handOver: true });
        house = undefined;
        return { closed: true };
      },
      async stop() {
        changes.close();
        standby?.close();
        await close();
      },
    };

    /** What cannot be made ready is opened, and told of, when it is wanted. */
    function makeReady(): Standby | undefined {
      try {
        return Standby.open({ path, durable: !ctx.config.no_sync, migrations });
      } catch (error) {
        ctx.log.debug('no standby', { error: (error as Error).message });
        return undefined;
      }
    }
  },
});
