/** Messages ↔ namespaces. */
import { NamespaceCreate, NamespaceDelete, NamespaceUpdate } from 'troupe/proto/containerd/events/namespace.ts';
import type { Namespace as Message } from 'troupe/proto/containerd/services/namespaces/v1/namespaces.ts';
import { type RecordEvent, recordEvent } from 'troupe/plugin';
import type { Labels } from '../lib/label/label.ts';
import type { Namespace } from './store.ts';

export function toMessage({ name, labels }: Namespace): Message {
  return { name, labels: { ...labels } };
}

export function created({ name, labels }: Namespace): RecordEvent {
  return recordEvent(name, '/namespaces/create', NamespaceCreate, { name, labels: { ...labels } });
}

export function updated(name: string, labels: Labels): RecordEvent {
  return recordEvent(name, '/namespaces/update', NamespaceUpdate, { name, labels: { ...labels } });
}

export function deleted(name: string): RecordEvent {
  return recordEvent(name, '/namespaces/delete', NamespaceDelete, { name });
}
