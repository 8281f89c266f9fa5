/** Greets, and remembers whom it has greeted how often, across reloads. Its first version kept names only. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Call, definePlugin, Failure } from 'troupe/plugin';

interface Config {
  readonly greeting: string;
}

export default definePlugin<Config, ReadonlyMap<string, number> | readonly string[]>({
  start({ config }) {
    let { greeting } = config;
    let times = new Map<string, number>();

    return {
      serve: {
        'example.hello.v1.Hello': {
          hello({ name }: { name: string }) {
            if (name === '') throw new Failure('InvalidArgument', 'whom to greet is missing: invalid argument');
            times.set(name, (times.get(name) ?? 0) + 1);
            return { text: `${greeting}, ${name}`, times: times.get(name) };
          },

          async *count({ to }: { to: number }, call: Call) {
            for (let number = Number(call.resume) + 1; number <= to; number++) {
              call.cursor(String(number));
              yield { number };
              await sleep(5, undefined, { signal: call.signal });
            }
          },
        },
      },
      activate(state = []) {
        times = new Map(state instanceof Map ? state : [...(state as readonly string[])].map((name) => [name, 1]));
      },
      suspend: () => times,
      configure(next) {
        greeting = next.greeting;
        return undefined;
      },
    };
  },
});
