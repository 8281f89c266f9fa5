/** Transfer: images between registries, archives and this daemon's store. Wiring only. */
import { definePlugin } from 'troupe/plugin';
import { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { RegistryDefinition } from 'troupe/proto/troupe/registry/v1/registry.ts';
import { Transports } from '../lib/registry/transports.ts';
import type { Config } from './config.ts';
import { registryService } from './registry-test.ts';
import { transferService } from './service.ts';
import { Slots } from './together.ts';

export default definePlugin<Config>({
  start(ctx) {
    const transports = new Transports(ctx.config.stall_timeout || undefined);
    const downloads = new Slots(ctx.config.max_concurrent_downloads);
    const uploads = new Slots(ctx.config.max_concurrent_uploaded_layers);
    return {
      serve: {
        [TransferDefinition.fullName]: transferService({ ctx, transports, downloads, uploads }),
        [RegistryDefinition.fullName]: registryService(ctx, transports),
      },
      stop: () => transports.close(),
    };
  },
});
