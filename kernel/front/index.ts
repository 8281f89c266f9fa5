/** The front: sockets to the outside, calls to the inside. A plugin of the kernel's own in a worker of its own, started last. */
import { createServer, type Server as NetServer } from 'node:net';
import type { Router } from '../bus/router.ts';
import { definePlugin, type PluginContext } from '../sdk/plugin.ts';
import { listenUnix } from '../sys/index.ts';
import type { FrontConfig } from './config.ts';
import { GrpcServer } from './grpc-server.ts';
import { MethodTable } from './methods.ts';

export default definePlugin<FrontConfig>({
  start(ctx) {
    const { router } = ctx as PluginContext<FrontConfig> & { router: Router };
    const { grpc, limits } = ctx.config;
    const methods = new MethodTable(router);
    const server = new GrpcServer(router, methods, limits, ctx.log);
    let listener: NetServer | undefined;
    let unlink = () => {};
    return {
      serve: {},
      async activate() {
        server.start();
        const socket = listenUnix(grpc.address, 0o660, grpc.uid, grpc.gid);
        unlink = () => socket.unlink();
        listener = createServer((connection) => server.accept(connection, { kind: 'unix', describe: () => ({}) }));
        listener.listen({ fd: socket.fd });
      },
      async stop() {
        unlink();
        listener?.close();
        await server.stop(1000);
      },
    };
  },
});
