/** Messages ↔ leases. */
import type { Lease as Message, Resource } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { Failure, type LeaseResource } from 'troupe/plugin';
import { digestProblem } from '../lib/digest/digest.ts';
import { quote } from '../lib/identifier/quote.ts';
import { fromNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Lease } from './store.ts';

export function toMessage({ id, createdAt, labels }: Lease): Message {
  return { id, createdAt: fromNanoseconds(createdAt), labels: { ...labels } };
}

/**
 * @throws Failure Unimplemented for a type that cannot be leased, InvalidArgument for content whose id is no digest and for an
 *   empty id.
 */
export function toResource(resource: Resource | undefined): LeaseResource {
  const type = resource?.type ?? '';
  const id = resource?.id ?? '';
  const [root, snapshotter, ...rest] = type.split('/');
  const known =
    root === 'snapshots'
      ? snapshotter !== undefined && snapshotter !== '' && rest.length === 0
      : ['content', 'ingests', 'images'].includes(type);
  if (root === 'snapshots' && !known)
    throw new Failure('InvalidArgument', `invalid snapshot resource type ${quote(type)}: invalid argument`);
  if (!known) throw new Failure('Unimplemented', `resource type ${quote(type)} not supported yet: not implemented`);
  if (id === '') throw new Failure('InvalidArgument', `resource of type ${quote(type)} has no id: invalid argument`);
  const problem = type === 'content' ? digestProblem(id) : undefined;
  if (problem !== undefined)
    throw new Failure('InvalidArgument', `invalid content resource id ${quote(id)}: ${problem}: invalid argument`);
  return { type, id };
}
