import { CreateImageRequest } from '../../proto/gen/containerd/services/images/v1/images.ts';
import { Empty } from '../../proto/gen/google/protobuf/empty.ts';

/** Contracts whose messages are bytes as they are: what is measured is the bus, not protobuf. */
const asIs = {
  encode: (message: Uint8Array) => ({ finish: () => message }),
  decode: (bytes: Uint8Array) => bytes,
  fromPartial: (message: never) => message,
};

export const echoDefinition = {
  name: 'Echo',
  fullName: 'bench.Echo',
  methods: {
    echo: { name: 'Echo', requestType: asIs, requestStream: false, responseType: asIs, responseStream: false },
  },
} as const;

export const streamDefinition = {
  name: 'Stream',
  fullName: 'bench.Stream',
  methods: {
    stream: { name: 'Stream', requestType: asIs, requestStream: false, responseType: asIs, responseStream: true },
  },
} as const;

/** A message as services get them, and an acknowledgement. */
export const takeDefinition = {
  name: 'Take',
  fullName: 'bench.Take',
  methods: {
    take: {
      name: 'Take',
      requestType: CreateImageRequest,
      requestStream: false,
      responseType: Empty,
      responseStream: false,
    },
  },
} as const;

/** 416 bytes when it is encoded: an image with the labels that a pull gives it. */
export function realMessage(): CreateImageRequest {
  return CreateImageRequest.fromPartial({
    image: {
      name: 'registry.test/library/application:2026-11',
      labels: {
        'containerd.io/distribution.source.registry.test': 'library/application',
        'containerd.io/gc.ref.snapshot.overlayfs': `sha256:${'5f'.repeat(32)}`,
        'io.cri-containerd.image': 'managed',
        'troupe.io/bench': '416',
      },
      target: {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: `sha256:${'a3'.repeat(32)}`,
        size: 1234,
      },
    },
  });
}
