/** Refuses layers by their digest. What it refuses is a list in the config, which may change while the daemon runs. */
import { definePlugin, type Service } from 'troupe/plugin';
import { VerifierDefinition } from 'troupe/proto/troupe/verifier/v1/verifier.ts';

interface Config {
  readonly refused: readonly string[];
}

export default definePlugin<Config>({
  start({ config, log }) {
    let refused = new Set(config.refused);
    const service: Service<typeof VerifierDefinition> = {
      verify({ descriptor }) {
        const digest = descriptor?.digest ?? '';
        if (!refused.has(digest)) return { ok: true, reason: '' };
        log.warn('refused a layer', { digest });
        return { ok: false, reason: 'it is on the list' };
      },
    };
    return {
      serve: { [VerifierDefinition.fullName]: service },
      configure(next) {
        refused = new Set(next.refused);
        return undefined;
      },
    };
  },
});
