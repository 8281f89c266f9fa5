/** Leases: what a client works on stays until it says so, or its time is over. */
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import { definePlugin } from 'troupe/plugin';
import { leasesService } from './service.ts';
import { LeaseStore } from './store.ts';

export default definePlugin({
  start(ctx) {
    const records = ctx.call(RecordsDefinition);
    return {
      serve: {
        [LeasesDefinition.fullName]: leasesService(new LeaseStore(ctx.records), async (call) => {
          await records.collect({}, call);
        }),
      },
    };
  },
});
