import { existsSync, mkdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { mountinfo } from 'troupe/sys';
import { needing } from '../../test/helpers/privilege.ts';
import { removeCgroups } from './cgroups.ts';

const cgroupTest = needing('root', 'cgroup');
const hierarchies = () =>
  mountinfo()
    .filter(({ fstype }) => fstype === 'cgroup' || fstype === 'cgroup2')
    .map(({ mountPoint }) => mountPoint);
const name = `troupe-cgroups-${process.pid}`;

cgroupTest(
  'groups that are empty go from every hierarchy, with those below; what leads elsewhere is left alone',
  async (t) => {
    const groups = hierarchies().map((each) => join(each, name, 'web'));
    t.true(groups.length > 0);
    for (const group of groups) mkdirSync(join(group, 'below'), { recursive: true });
    t.teardown(() => {
      for (const group of groups) if (existsSync(join(group, '..'))) rmdirSync(join(group, '..'));
    });
    for (const path of ['', '/', `${name}/web`, `/${name}/../${name}/web`, `/${name}/web/`, 'system.slice:troupe:web'])
      await removeCgroups(path);
    t.true(groups.every((group) => existsSync(group)));
    await removeCgroups(`/${name}/web`);
    t.deepEqual(
      groups.filter((group) => existsSync(group)),
      [],
    );
    t.true(
      groups.every((group) => existsSync(join(group, '..'))),
      'the namespace’s own is not the container’s',
    );
    await t.notThrowsAsync(removeCgroups(`/${name}/web`), 'nothing there');
  },
);

cgroupTest('a group that somebody runs in stays', async (t) => {
  const group = join(hierarchies()[0]!, `${name}-busy`);
  mkdirSync(group);
  const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  writeFileSync(join(group, 'cgroup.procs'), `${child.pid}`);
  await removeCgroups(`/${name}-busy`);
  t.true(existsSync(group));
  child.kill('SIGKILL');
  await ended;
  await removeCgroups(`/${name}-busy`);
  t.false(existsSync(group));
});
