/** The demo, as the README promises it: to whom everything is allowed, and to whom little is. */
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { run } from '../helpers/command.ts';
import { needing, withoutPrivilege } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';

const checkout = fileURLToPath(new URL('../..', import.meta.url));

async function demo(t: ExecutionContext, prefix: readonly string[]): Promise<string> {
  t.timeout(180_000);
  const [program = '', ...args] = [...prefix, process.execPath, 'demo/run.ts'];
  const env = { TMPDIR: useScratch(t, 'demo') };
  const { code, stdout, stderr } = await run(program, args, { cwd: checkout, env, timeoutMs: 150_000 });
  t.is(code, 0, `${stdout}${stderr}`);
  t.is(stderr, '');
  t.regex(stdout, /every diff id as the image says/);
  t.regex(stdout, /^\/?\s*\/images\/create +1$/m);
  t.regex(
    stdout,
    /reloaded 5 times, 16 calls open at any time: \d+ calls, 0 failed\n {2}its calls were held for [\d.]+ ms/,
  );
  t.regex(
    stdout,
    /mortal killed: of its \d+ calls \d failed, those that ran in it; of the others' \d+ failed 0\n {2}it served again after \d+ ms/,
  );
  t.regex(stdout, /Nothing is left: no mount, process, cgroup or file\s*$/);
  return stdout;
}

needing(
  'root',
  'mount',
  'cgroup',
  'program runc',
  'program containerd-shim-runc-v2',
  'program busybox',
)('as root it unpacks all layers at once, runs a container from them, and leaves nothing', async (t) => {
  const shown = await demo(t, []);
  t.regex(shown, /Unpacking it into overlayfs snapshots, all layers at once/);
  t.notRegex(shown, /waited for|left out|bug/);
  t.regex(shown, /│ Hello from a container/);
  t.regex(shown, /the hidden file: not there/);
  t.regex(shown, /the exec ended with 0, the container with 7/);
});

test.serial('without privilege it says what it leaves out, and what would allow it', async (t) => {
  const shown = await demo(t, withoutPrivilege);
  t.regex(
    shown,
    /Unpacking it into native snapshots, one layer after the other\n {2}Not overlayfs.*mounting takes root/,
  );
  t.regex(shown, /Running a container: left out\n {2}· .*\n {4}What would allow it: /);
  t.regex(shown, /overlayfs +skipped/);
  t.notRegex(shown, /bug/);
});
