/** Content between its messages and the store, and what filters see of it. */
import type { Info, Status, WriteContentResponse } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { type Adaptor, absent, field, labelField, present } from '../lib/filter/filter.ts';
import { fromNanoseconds } from '../lib/timestamp/timestamp.ts';
import type { Blob } from './store.ts';
import type { Writer } from './writer.ts';
import type { IngestStatus } from './writers.ts';

export function toInfo(blob: Blob): Info {
  return {
    digest: blob.digest,
    size: blob.size,
    createdAt: fromNanoseconds(blob.created),
    updatedAt: fromNanoseconds(blob.updated),
    labels: { ...blob.labels },
  };
}

/** `digest`, `size`, `labels.KEY` */
export function infoAdaptor(blob: Blob): Adaptor {
  return (fieldpath) => {
    switch (fieldpath[0]) {
      case 'digest':
        return field(blob.digest);
      case 'size':
        return present(blob.size.toString());
      case 'labels':
        return labelField(blob.labels, fieldpath);
      default:
        return absent;
    }
  };
}

export function toStatus(status: IngestStatus): Status {
  return {
    ref: status.ref,
    offset: status.offset,
    total: status.total,
    expected: status.expected,
    startedAt: fromNanoseconds(status.startedAt),
    updatedAt: fromNanoseconds(status.updatedAt),
  };
}

/** `ref` */
export function statusAdaptor(status: IngestStatus): Adaptor {
  return (fieldpath) => (fieldpath[0] === 'ref' ? field(status.ref) : absent);
}

export function toWriteResponse(
  writer: Writer,
  action: WriteContentResponse['action'],
  total: bigint,
): WriteContentResponse {
  return {
    action,
    startedAt: fromNanoseconds(writer.startedAt),
    updatedAt: fromNanoseconds(writer.updatedAt),
    offset: writer.offset,
    total,
    digest: writer.digest,
  };
}
