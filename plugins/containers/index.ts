/** Containers: what is to be run. Wiring only. */
import { definePlugin } from 'troupe/plugin';
import { ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { containersService } from './service.ts';
import { Store } from './store.ts';

export default definePlugin({
  start(ctx) {
    return { serve: { [ContainersDefinition.fullName]: containersService(new Store(ctx.records)) } };
  },
});
