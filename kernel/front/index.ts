/** The front: sockets to the outside, calls to the inside. A plugin of the kernel's own in a worker of its own, started last. */
import type { Server as HttpServer } from 'node:http';
import type { Socket } from 'node:net';
import { KernelDefinition, type Plugin } from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import type { KernelContext } from '../sdk/host.ts';
import { definePlugin, type PluginContext } from '../sdk/plugin.ts';
import { peerCredentials, socketFd } from '../sys/index.ts';
import type { FrontConfig } from './config.ts';
import { GrpcServer, type Peer } from './grpc-server.ts';
import { type Listening, serveTcp, serveUnix } from './listener.ts';
import { MethodTable } from './methods.ts';
import type { TcpServer } from './tls.ts';
import { ttrpcEvents } from './ttrpc-events.ts';

/** What one generation tells the next: that its sockets may be taken over. */
interface FrontState {
  readonly listening: true;
}

/** Calls that run when the daemon stops have this long. */
const stopMs = 1000;

export default definePlugin<FrontConfig, FrontState>({
  start(ctx) {
    const { router, drain } = ctx as PluginContext<FrontConfig> & Pick<KernelContext, 'router' | 'drain'>;
    const { config, log } = ctx;
    const methods = new MethodTable(router);
    const server = new GrpcServer(router, methods, config.limits, log);
    // Connections and what runs on them stay with this generation; the next has its own. A socket cannot be handed over without what has been read of it.
    drain(() => server.drained());
    const ttrpc = ttrpcEvents(router, log);
    const kernel = ctx.call(KernelDefinition);
    const plugins = async (): Promise<readonly Plugin[]> =>
      (await kernel.list({ ids: [] }, { timeoutMs: 5000 })).plugins;
    const dump = async (): Promise<string> => (await kernel.dump({}, { timeoutMs: 10_000 })).text;

    const unix: Listening[] = [];
    /** A port has one owner: these are closed before the next generation opens its own. */
    const tcp: Listening[] = [];
    let tls: TcpServer | undefined;

    const openTcp = async () => {
      if (config.tcp.address !== '') {
        const { tcpServer } = await import('./tls.ts');
        tls = tcpServer(config.tcp, config.limits, log, (socket) => server.accept(socket, tcpPeer(socket)));
        tcp.push(await serveTcp(tls.server, config.tcp.address, log));
      }
      if (config.metrics.address !== '') {
        const { metricsServer } = await import('./metrics.ts');
        const { version, revision } = ctx.daemon;
        const { grpcHistogram: histogram, address } = config.metrics;
        tcp.push(
          await serveTcp(metricsServer({ version, revision, methods, server, histogram, plugins }), address, log),
        );
      }
    };
    const openUnix = (replace: boolean) => {
      if (config.debug.address !== '') {
        let debug: HttpServer | undefined;
        unix.push(
          serveUnix(config.debug, replace, log, async (socket) => {
            // Nobody pays for it before it is used.
            debug ??= (await import('./debug.ts')).debugServer({ dump, plugins });
            debug.emit('connection', socket);
          }),
        );
      }
      if (config.ttrpc.address !== '')
        unix.push(serveUnix(config.ttrpc, replace, log, (socket) => ttrpc.accept(socket)));
      // The one that clients wait for comes last.
      unix.push(serveUnix(config.grpc, replace, log, (socket) => server.accept(socket, unixPeer(socket))));
    };
    const close = async (sockets: Listening[]) => {
      await Promise.all(sockets.splice(0).map((each) => each.close()));
    };

    return {
      serve: {},
      async activate(state) {
        // There are some when it is called back because its successor has failed: that may have put its own sockets in their place.
        const before = unix.splice(0);
        try {
          await openTcp();
          openUnix(state !== undefined || before.length > 0);
        } catch (error) {
          await close([...unix.splice(0), ...tcp.splice(0)]);
          throw error;
        } finally {
          await close(before);
        }
        server.start();
      },
      async suspend() {
        tls?.stop();
        await close(tcp);
        // Unix sockets go on: the next generation puts its own in their place.
        return { listening: true };
      },
      async stop() {
        tls?.stop();
        await close([...unix.splice(0), ...tcp.splice(0)]);
        await server.stop(stopMs);
        ttrpc.close();
      },
    };
  },
});

/** Asked only when there is something to say of it. */
function unixPeer(socket: Socket): Peer {
  return {
    kind: 'unix',
    describe: () => {
      const fd = socketFd(socket);
      return fd === undefined ? {} : { ...peerCredentials(fd) };
    },
  };
}

function tcpPeer(socket: Socket): Peer {
  const address = `${socket.remoteAddress}:${socket.remotePort}`;
  return { kind: 'tcp', describe: () => ({ address }) };
}
