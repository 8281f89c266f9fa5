/** All that transfers need, made with the first of them: HTTP and TLS are 8 MB that most hours of most daemons do without. */
import type { PluginContext, Service } from 'troupe/plugin';
import type { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import type { RegistryDefinition } from 'troupe/proto/troupe/registry/v1/registry.ts';
import { Transports } from '../lib/registry/transports.ts';
import type { Config } from './config.ts';
import { registryService } from './registry-test.ts';
import { transferService } from './service.ts';
import { Downloads } from './downloads.ts';
import { Slots } from './together.ts';

export interface Serving {
  readonly transfer: Service<typeof TransferDefinition>;
  readonly registry: Service<typeof RegistryDefinition>;
  close(): void;
}

export function serving(ctx: PluginContext<Config>): Serving {
  const transports = new Transports(ctx.config.stall_timeout || undefined);
  const downloads = new Downloads(ctx.config.max_concurrent_downloads);
  const uploads = new Slots(ctx.config.max_concurrent_uploaded_layers);
  return {
    transfer: transferService({ ctx, transports, downloads, uploads }),
    registry: registryService(ctx, transports),
    close: () => transports.close(),
  };
}
