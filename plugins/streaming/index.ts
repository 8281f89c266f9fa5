/** Streaming: bytes and messages that belong to other calls. Wiring only. */
import { definePlugin } from 'troupe/plugin';
import { StreamingDefinition } from 'troupe/proto/containerd/services/streaming/v1/streaming.ts';
import { StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import { OpenStreams } from './open-streams.ts';
import { serveStreaming, serveStreams } from './service.ts';

export default definePlugin<{ readonly max_streams: number }>({
  start(ctx) {
    const open = new OpenStreams(ctx.config.max_streams);
    return {
      serve: { [StreamingDefinition.fullName]: serveStreaming(open), [StreamsDefinition.fullName]: serveStreams(open) },
    };
  },
});
