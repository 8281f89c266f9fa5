/** Contract name → its generated definition, loaded when a plugin serves it and not before: most workers need one or two of them. */
import { services } from '../../proto/gen/services.ts';
import { Failure } from './failure.ts';
import type { ServiceDefinition } from './plugin.ts';

/** @throws Failure NotFound when the contract is neither in proto/ nor described by a .proto file of the plugin's. */
export async function definitionOf(contract: string, protoFile: string | undefined): Promise<ServiceDefinition> {
  const load = services[contract];
  if (load !== undefined) return (await load()) as ServiceDefinition;
  if (protoFile === undefined) {
    throw new Failure(
      'NotFound',
      `contract ${contract}: not in proto/, and the manifest names no proto file: not found`,
    );
  }
  const { definitionFromFile } = await import('./proto-file.ts');
  return definitionFromFile(contract, protoFile);
}
