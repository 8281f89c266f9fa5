/** Containers between their messages and the store, what filters see of them, and what makes one valid. */
import { Failure } from 'troupe/plugin';
import type { Container as ContainerMessage } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { type Adaptor, absent, field, labelField } from '../lib/filter/filter.ts';
import { identifierProblem } from '../lib/identifier/identifier.ts';
import { copyLabels, validateLabels } from '../lib/label/label.ts';
import { fromNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Container } from './store.ts';

/** `id`, `image`, `runtime.name`, `labels.KEY` */
export function adaptor(container: Container): Adaptor {
  return (fieldpath) => {
    switch (fieldpath[0]) {
      case 'id':
        return field(container.id);
      case 'image':
        return field(container.image);
      case 'runtime':
        return fieldpath[1] === 'name' ? field(container.runtime.name) : absent;
      case 'labels':
        return labelField(container.labels, fieldpath);
      default:
        return absent;
    }
  };
}

export function toMessage(container: Container): ContainerMessage {
  const { id, image, spec, snapshotter, snapshotKey, sandbox } = container;
  return {
    id,
    labels: { ...container.labels },
    image,
    runtime: container.runtime,
    spec,
    snapshotter,
    snapshotKey,
    createdAt: fromNanoseconds(container.created),
    updatedAt: fromNanoseconds(container.updated),
    extensions: { ...container.extensions },
    sandbox,
  };
}

/** What a client asks for; times are the store's. @throws Failure InvalidArgument when there is no spec. */
export function fromMessage(message: ContainerMessage): Omit<Container, 'created' | 'updated'> {
  const { id, image, spec, snapshotter, snapshotKey, sandbox, extensions } = message;
  if (spec === undefined) throw invalid('container.Spec must be set');
  return {
    id,
    image,
    runtime: { name: message.runtime?.name ?? '', options: message.runtime?.options },
    spec,
    snapshotter,
    snapshotKey,
    sandbox,
    extensions,
    labels: copyLabels(message.labels),
  };
}

/** @throws Failure InvalidArgument naming the field. */
export function validate<T extends Omit<Container, 'created' | 'updated'>>(container: T): T {
  const problem = identifierProblem(container.id);
  if (problem !== undefined) throw invalid(`container.ID: ${problem}`);
  if (Object.hasOwn(container.extensions, '')) throw invalid('container.Extension keys must not be zero-length');
  if (container.runtime.name === '') throw invalid('container.Runtime.Name must be set');
  if (container.snapshotKey !== '' && container.snapshotter === '')
    throw invalid('container.Snapshotter must be set if container.SnapshotKey is set');
  validateLabels(container.labels, 'containers.Labels');
  return container;
}

/** Runs a check and puts what was being done in front of its complaint. */
export function during<T>(what: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!Failure.is(error, 'InvalidArgument')) throw error;
    throw new Failure('InvalidArgument', `${what} failed validation: ${error.message}`);
  }
}

export function invalid(problem: string): Failure {
  return new Failure('InvalidArgument', `${problem}: invalid argument`);
}
