/** troupe.registry.v1.Registry: a resolve with every request on the way told as it is answered. */
import { Failure, type PluginContext, type Service } from 'troupe/plugin';
import type { RegistryDefinition, TestResponse } from 'troupe/proto/troupe/registry/v1/registry.ts';
import { Pipe } from '../lib/pipe/pipe.ts';
import type { Transports } from '../lib/registry/transports.ts';
import type { Config } from './config.ts';
import { openRegistry } from './registry-access.ts';

export function registryService(
  ctx: PluginContext<Config>,
  transports: Transports,
): Service<typeof RegistryDefinition> {
  return {
    async *test({ reference, hostDir, plainHttp }, call) {
      const resolver = {
        authStream: '',
        headers: {},
        hostDir,
        defaultScheme: plainHttp ? 'http' : '',
        httpDebug: 0 as const,
        logsStream: '',
      };
      const told = new Pipe<TestResponse>();
      const signal = AbortSignal.any([call.signal, ctx.signal]);
      const access = await openRegistry(
        ctx,
        ctx.config,
        transports,
        { reference, resolver },
        { namespace: call.namespace, signal },
        (hop) => {
          void told.write({ hop });
        },
      );
      try {
        for (const { scheme, host, path, capabilities, source } of access.hosts)
          yield { host: { url: `${scheme}://${host}${path}`, capabilities: [...capabilities], source } };
        access.registry.resolve(signal).then(
          ({ mediaType, digest, size }) => {
            void told.write({ resolved: { mediaType, digest, size: BigInt(size) } });
            told.end();
          },
          (error) => told.end(Failure.from(error)),
        );
        yield* told;
      } finally {
        access.close();
      }
    },
  };
}
