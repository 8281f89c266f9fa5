/** The two ends of a transfer, out of their Anys. */
import { Failure } from 'troupe/plugin';
import { ImageExportStream, ImageImportStream } from 'troupe/proto/containerd/types/transfer/archive.ts';
import { ImageStore } from 'troupe/proto/containerd/types/transfer/image_store.ts';
import { OCIRegistry } from 'troupe/proto/containerd/types/transfer/registry.ts';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';

export interface Ends {
  readonly registry: OCIRegistry;
  readonly store: ImageStore;
  readonly import: ImageImportStream;
  readonly export: ImageExportStream;
}

export type End = { [K in keyof Ends]: { readonly kind: K; readonly end: Ends[K] } }[keyof Ends];

/** @throws Failure InvalidArgument when it is missing or cannot be read, Unimplemented for a type that is no end of a transfer */
export function parseEnd(any: Any | undefined, which: 'source' | 'destination'): End {
  if (any === undefined) throw new Failure('InvalidArgument', `transfer has no ${which}: invalid argument`);
  const name = any.typeUrl.slice(any.typeUrl.lastIndexOf('/') + 1);
  try {
    switch (name) {
      case OCIRegistry.$type:
        return { kind: 'registry', end: OCIRegistry.decode(any.value) };
      case ImageStore.$type:
        return { kind: 'store', end: ImageStore.decode(any.value) };
      case ImageImportStream.$type:
        return { kind: 'import', end: ImageImportStream.decode(any.value) };
      case ImageExportStream.$type:
        return { kind: 'export', end: ImageExportStream.decode(any.value) };
    }
  } catch (error) {
    throw new Failure('InvalidArgument', `${which} of the transfer: ${(error as Error).message}: invalid argument`, {
      cause: error,
    });
  }
  throw new Failure('Unimplemented', `${which} of the transfer is a ${name.slice(0, 200)}: not implemented`);
}

/** For messages, as containerd writes them. */
export function nameOf(end: End): string {
  switch (end.kind) {
    case 'registry':
      return `OCI Registry (${end.end.reference})`;
    case 'store':
      return `Local Image Store (${end.end.name})`;
    default:
      return `${end.kind} stream`;
  }
}
