/** The front: sockets to the outside, calls to the inside. A plugin of the kernel's own in a worker of its own, started last. */
import { createServer, type Server as NetServer } from 'node:net';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import type { Router } from '../bus/router.ts';
import { definePlugin, type PluginContext } from '../sdk/plugin.ts';
import { listenUnix } from '../sys/index.ts';
import type { FrontConfig } from './config.ts';
import { GrpcRoutes } from './grpc.ts';

export default definePlugin<FrontConfig>({
  start(ctx) {
    const { router } = ctx as PluginContext<FrontConfig> & { router: Router };
    const { grpc, limits } = ctx.config;
    const server = new Server({
      'grpc.max_receive_message_length': limits.maxRecvMessageSize,
      'grpc.max_send_message_length': limits.maxSendMessageSize,
      'grpc.max_concurrent_streams': 10_000,
      'grpc-node.flow_control_window': 1024 * 1024,
    });
    new GrpcRoutes(server, router, { began: () => {}, ended: () => {} });
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    let listener: NetServer | undefined;
    let unlink = () => {};
    return {
      serve: {},
      async activate() {
        const socket = listenUnix(grpc.address, 0o660, grpc.uid, grpc.gid);
        unlink = () => socket.unlink();
        listener = createServer((connection) => {
          connection.on('error', () => {});
          injector.injectConnection(connection);
        });
        listener.listen({ fd: socket.fd });
      },
      async stop() {
        unlink();
        listener?.close();
        injector.drain(1000);
        server.forceShutdown();
      },
    };
  },
});
