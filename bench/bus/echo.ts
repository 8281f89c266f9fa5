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
