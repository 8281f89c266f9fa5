/** Namespaces: tenants of one daemon, each with names of its own for everything. */
import { NamespacesDefinition } from 'troupe/proto/containerd/services/namespaces/v1/namespaces.ts';
import { definePlugin } from 'troupe/plugin';
import { namespacesService } from './service.ts';
import { NamespaceStore } from './store.ts';

export default definePlugin({
  start: (ctx) => ({
    serve: { [NamespacesDefinition.fullName]: namespacesService(new NamespaceStore(ctx.records)) },
  }),
});
