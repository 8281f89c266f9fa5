/** Transfer: images between registries, archives and this daemon's store. Wiring only. */
import { definePlugin, type Service } from 'troupe/plugin';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { RegistryDefinition } from 'troupe/proto/troupe/registry/v1/registry.ts';
import type { Config } from './config.ts';
import type { Serving } from './serving.ts';

export default definePlugin<Config>({
  start(ctx) {
    let made: Promise<Serving> | undefined;
    const serving = () => {
      made ??= import('./serving.ts').then((module) => module.serving(ctx));
      return made;
    };
    const transfer: Service<typeof TransferDefinition> = {
      transfer: async (request, call) => (await serving()).transfer.transfer(request, call),
    };
    const registry: Service<typeof RegistryDefinition> = {
      async *test(request, call) {
        yield* (await serving()).registry.test(request, call);
      },
    };
    return {
      serve: { [TransferDefinition.fullName]: transfer, [RegistryDefinition.fullName]: registry },
      stop: async () => (await made)?.close(),
    };
  },
});
